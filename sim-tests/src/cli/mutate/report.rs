//! What became of the mutants: a row for each file, and those that nobody noticed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::generate::Key;
use super::state::{Caught, Record};

#[derive(Serialize)]
pub struct Report {
    /// From 1 to this one.
    pub seeds: u64,
    /// Whether tests were asked as well.
    pub tests: bool,
    /// Left out, because they do not compile.
    pub unviable: usize,
    /// Seeds that do not hold without a mutant either, and so said nothing.
    pub broken_seeds: BTreeMap<u64, String>,
    pub files: Vec<Row>,
    pub all: Row,
    pub mutants: Vec<Line>,
}

#[derive(Clone, Default, Serialize)]
pub struct Row {
    pub file: String,
    pub mutants: usize,
    pub swept: usize,
    pub tested: usize,
    pub equivalent: usize,
    pub missed: usize,
    /// Of those missed: no seed came to their place.
    pub unreached: usize,
}

#[derive(Serialize)]
pub struct Line {
    #[serde(flatten)]
    pub key: Key,
    pub line: usize,
    #[serde(flatten)]
    pub fate: Fate,
}

#[derive(Serialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub enum Fate {
    Swept(Caught),
    Tested {
        by: String,
    },
    Equivalent {
        reason: String,
    },
    /// By all that was tried: so many seeds that came to its place.
    Missed {
        reached: u64,
    },
}

impl Fate {
    pub fn of(record: &Record, reason: Option<&String>) -> Self {
        if let Some(caught) = &record.caught {
            return Self::Swept(caught.clone());
        }
        if let Some(by) = record.tested.as_ref().and_then(|tested| tested.by.as_ref()) {
            return Self::Tested { by: by.clone() };
        }
        match reason {
            Some(reason) => Self::Equivalent { reason: reason.clone() },
            None => Self::Missed { reached: record.reached },
        }
    }
}

impl Row {
    fn add(&mut self, fate: &Fate) {
        self.mutants += 1;
        match fate {
            Fate::Swept(_) => self.swept += 1,
            Fate::Tested { .. } => self.tested += 1,
            Fate::Equivalent { .. } => self.equivalent += 1,
            Fate::Missed { reached } => {
                self.missed += 1;
                self.unreached += usize::from(*reached == 0);
            }
        }
    }

    /// Per cent of those that somebody could notice.
    fn score(&self, noticed: usize) -> String {
        match self.mutants - self.equivalent {
            0 => "-".into(),
            all => format!("{:.1} %", noticed as f64 * 100.0 / all as f64),
        }
    }
}

impl Report {
    pub fn new(
        seeds: u64,
        tests: bool,
        unviable: usize,
        broken_seeds: BTreeMap<u64, String>,
        mutants: Vec<Line>,
    ) -> Self {
        let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
        let mut all = Row { file: "all".into(), ..Row::default() };
        for line in &mutants {
            rows.entry(&line.key.file).or_default().add(&line.fate);
            all.add(&line.fate);
        }
        let files = rows.into_iter().map(|(file, row)| Row { file: file.into(), ..row }).collect();
        Self { seeds, tests, unviable, broken_seeds, files, all, mutants }
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| File | Mutants | Caught by the sweep | By tests only | Equivalent | Missed | Never reached | Sweep alone | Both |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        let mut say = |line: String| text += &(line + "\n");
        for row in self.files.iter().chain([&self.all]) {
            let Row { file, mutants, swept, tested, equivalent, missed, unreached } = row;
            let both = if self.tests { row.score(swept + tested) } else { "-".into() };
            let alone = row.score(*swept);
            say(format!(
                "| {file} | {mutants} | {swept} | {tested} | {equivalent} | {missed} | {unreached} | {alone} | {both} |"
            ));
        }
        say(format!("\nSeeds 1 to {}; {} more mutants do not compile.", self.seeds, self.unviable));
        for (seed, why) in &self.broken_seeds {
            say(format!("Seed {seed} does not hold without a mutant and was left out: {why}"));
        }
        self.seeds_needed(&mut say);
        say("\n## Missed\n".into());
        for Line { key, line, fate } in &self.mutants {
            if let Fate::Missed { reached } = fate {
                let reached =
                    if *reached == 0 { "never reached".into() } else { format!("reached by {reached} seeds") };
                say(format!("- `{}:{line}` {reached}: {}", key.file, key.what()));
            }
        }
        text
    }

    fn seeds_needed(&self, say: &mut impl FnMut(String)) {
        let mut seeds: Vec<u64> = self.mutants.iter().filter_map(|line| line.fate.seed()).collect();
        seeds.sort_unstable();
        let mut by: BTreeMap<&str, usize> = BTreeMap::new();
        for line in &self.mutants {
            if let Fate::Swept(Caught { by: names, .. }) = &line.fate {
                names.iter().for_each(|name| *by.entry(name).or_default() += 1);
            }
        }
        if let Some(median) = seeds.get(seeds.len().saturating_sub(1) / 2) {
            say(format!("Median seed {median}, highest {}.", seeds[seeds.len() - 1]));
        }
        let mut by: Vec<_> = by.into_iter().collect();
        by.sort_by_key(|(name, count)| (usize::MAX - count, *name));
        let by: Vec<String> = by.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if !by.is_empty() {
            say(format!("Caught by: {}.", by.join(", ")));
        }
    }
}

impl Fate {
    fn seed(&self) -> Option<u64> {
        match self {
            Self::Swept(caught) => Some(caught.seed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mutate::state::Tested;

    fn line(file: &str, record: Record, reason: Option<&str>) -> Line {
        let key = Key { file: file.into(), function: "f".into(), change: "delete !".into(), text: "!a".into(), nth: 1 };
        Line { key, line: 7, fate: Fate::of(&record, reason.map(String::from).as_ref()) }
    }

    #[test]
    fn scores_are_of_what_somebody_could_notice() {
        let record = |reached| Record { tried: 4, reached, ..Record::default() };
        let caught = |seed| Some(Caught { seed, by: vec!["finality".into()], why: String::new() });
        let report = Report::new(
            4,
            true,
            2,
            BTreeMap::from([(3, "late".into())]),
            vec![
                line("a.rs", Record { caught: caught(2), ..record(1) }, None),
                line("a.rs", Record { tested: Some(Tested { by: Some("t".into()) }), ..record(3) }, None),
                line("a.rs", record(3), Some("it is the same")),
                line("a.rs", record(3), None),
                line("b.rs", record(0), None),
            ],
        );
        let text = report.markdown();
        for part in [
            "| a.rs | 4 | 1 | 1 | 1 | 1 | 0 | 33.3 % | 66.7 % |",
            "| b.rs | 1 | 0 | 0 | 0 | 1 | 1 | 0.0 % | 0.0 % |",
            "| all | 5 | 1 | 1 | 1 | 2 | 1 | 25.0 % | 50.0 % |",
            "Seed 3 does not hold",
            "Median seed 2, highest 2.",
            "Caught by: finality 1.",
            "- `a.rs:7` reached by 3 seeds: f: delete !: `!a`",
            "- `b.rs:7` never reached: f",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
