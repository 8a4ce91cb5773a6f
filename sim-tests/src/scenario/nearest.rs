//! "Did you mean": the known name that is nearest to an unknown one.

/// The candidate with the fewest letters to change, if they are few enough for a slip of the pen.
pub fn nearest<'c>(given: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let most = (given.chars().count() / 3).max(1) + 1;
    candidates
        .into_iter()
        .map(|candidate| (distance(given, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to put in, take out or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let names = ["partition", "pause", "power_cut", "power_cut_all"];
        for (given, expected) in [
            ("partitoin", Some("partition")),
            ("powercut", Some("power_cut")),
            ("power_cut_al", Some("power_cut_all")),
            ("pase", Some("pause")),
            ("earthquake", None),
        ] {
            assert_eq!(nearest(given, names), expected, "{given}");
        }
    }
}
