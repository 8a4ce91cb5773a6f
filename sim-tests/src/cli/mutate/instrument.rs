//! A file with all its mutants in it, each behind the switch, and what of the new text is of which mutant.

use std::collections::BTreeSet;
use std::ops::Range;

use super::generate::{Form, Site};

/// What is added to the copy's `campanile-model`: the switch. It is read once, from the environment, so that a run
/// stays as determined as it was. With 0 no mutant is on; what is reached is then noted, if there is a file for it.
pub const SWITCH: &str = r#"
pub mod mutant {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    const UNREAD: u32 = u32::MAX;
    const NOTING: u32 = u32::MAX - 1;
    static CHOSEN: AtomicU32 = AtomicU32::new(UNREAD);
    static REACHED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

    #[inline]
    pub fn on(id: u32) -> bool {
        at(id, id) != 0
    }

    /// Which one is on of those from `first` to `last`; 0 for none.
    #[inline]
    pub fn at(first: u32, last: u32) -> u32 {
        let chosen = CHOSEN.load(Ordering::Relaxed);
        if first <= chosen && chosen <= last {
            return chosen;
        }
        if chosen >= NOTING { begin(first, last) } else { 0 }
    }

    #[cold]
    fn begin(first: u32, last: u32) -> u32 {
        if CHOSEN.load(Ordering::Relaxed) == UNREAD {
            let noting = std::env::var_os("MUTANTS_REACHED").is_some();
            let named = std::env::var("MUTANT").ok().map(|id| id.parse().expect("MUTANT is a number"));
            CHOSEN.store(named.unwrap_or(if noting { NOTING } else { 0 }), Ordering::Relaxed);
            return at(first, last);
        }
        let mut reached = REACHED.lock().unwrap();
        let new: String = (first..=last).filter(|id| reached.insert(*id)).map(|id| format!("{id}\n")).collect();
        if !new.is_empty() {
            let path = std::env::var_os("MUTANTS_REACHED").unwrap();
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(new.as_bytes()).unwrap();
        }
        0
    }
}
"#;

/// The variables it reads. Not `CAMPANILE_*`: those are settings of the product.
pub const CHOSEN: &str = "MUTANT";
pub const REACHED: &str = "MUTANTS_REACHED";

/// A file of the product with numbered mutants.
pub struct Source {
    pub file: String,
    pub text: String,
    pub sites: Vec<Site>,
    /// Number of the first mutant; the others follow in their order.
    pub first: u32,
}

/// Where in the new text a mutant stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub id: u32,
    /// What is only there because of it.
    pub own: Range<usize>,
    /// The whole place, with what was there before.
    pub site: Range<usize>,
    /// Of the old text: the function around.
    pub function: Range<usize>,
}

pub struct Instrumented {
    pub text: String,
    pub pieces: Vec<Piece>,
}

impl Source {
    /// The file's mutants with their numbers.
    pub fn mutants(&self) -> impl Iterator<Item = (u32, &super::generate::Mutant)> {
        (self.first..).zip(self.sites.iter().flat_map(|site| &site.mutants))
    }

    pub fn instrument(&self, without: &BTreeSet<u32>) -> Instrumented {
        let mut writer = Writer { source: self, without, out: String::new(), pieces: Vec::new() };
        let mut id = self.first;
        let numbered: Vec<(u32, &Site)> = self
            .sites
            .iter()
            .map(|site| {
                let first = id;
                id += site.mutants.len() as u32;
                (first, site)
            })
            .collect();
        writer.write(0..self.text.len(), &numbered);
        Instrumented { text: writer.out, pieces: writer.pieces }
    }
}

struct Writer<'s> {
    source: &'s Source,
    without: &'s BTreeSet<u32>,
    out: String,
    pieces: Vec<Piece>,
}

impl Writer<'_> {
    /// A part of the old text, with the sites in it.
    fn write(&mut self, part: Range<usize>, mut sites: &[(u32, &Site)]) {
        let mut at = part.start;
        while let [(first, site), rest @ ..] = sites {
            let within =
                rest.iter().take_while(|(_, inner)| inner.place.end <= site.place.end && !site.place.is_empty());
            let (inner, after) = rest.split_at(within.count());
            self.out += &self.source.text[at..site.place.start];
            self.site(*first, site, inner);
            at = site.place.end;
            sites = after;
        }
        self.out += &self.source.text[at..part.end];
    }

    fn site(&mut self, first: u32, site: &Site, inner: &[(u32, &Site)]) {
        let mutants: Vec<(u32, &str)> = (first..)
            .zip(site.mutants.iter().map(|mutant| mutant.instead.as_str()))
            .filter(|(id, _)| !self.without.contains(id))
            .collect();
        if mutants.is_empty() {
            return self.write(site.place.clone(), inner);
        }
        let (begin, known) = (self.out.len(), self.pieces.len());
        let own = |writer: &mut Self, id: u32, text: String| {
            let from = writer.out.len();
            writer.out += &text;
            let function = site.function.clone();
            writer.pieces.push(Piece { id, own: from..writer.out.len(), site: 0..0, function });
        };
        let on = |id: u32| format!("::campanile_model::mutant::on({id})");
        match site.form {
            Form::Value => {
                // What was there comes first, so that the others must be of its type and not the other way round.
                let last = mutants[mutants.len() - 1].0;
                self.out += &format!("(match ::campanile_model::mutant::at({}, {last}) {{ 0 => {{ ", mutants[0].0);
                self.write(site.place.clone(), inner);
                self.out += " }";
                for (id, instead) in &mutants {
                    let pattern = if *id == last { String::from("_") } else { id.to_string() };
                    own(self, *id, format!(" {pattern} => {{ {instead} }}"));
                }
                self.out += " })";
            }
            Form::Statement => {
                own(self, mutants[0].0, format!("if !{} ", on(mutants[0].0)));
                self.out += "{ ";
                self.write(site.place.clone(), inner);
                self.out += " }";
                // Where it stands is all that an error says of a value that is missing later.
                self.pieces[known].own.end = self.out.len();
            }
            Form::Entry => {
                for (id, instead) in &mutants {
                    own(self, *id, format!(" if {} {{ return {instead}; }}", on(*id)));
                }
            }
            Form::Arm => own(self, mutants[0].0, format!(" if !{}", on(mutants[0].0))),
            Form::GuardedArm => {
                own(self, mutants[0].0, format!("!{} && ", on(mutants[0].0)));
                self.out += "(";
                self.write(site.place.clone(), inner);
                self.out += ")";
            }
        }
        let end = self.out.len();
        for piece in self.pieces[known..].iter_mut().filter(|piece| piece.site.is_empty()) {
            piece.site = begin..end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate::generate;
    use super::*;

    fn source(text: &str) -> Source {
        Source { file: "a.rs".into(), text: text.into(), sites: generate("a.rs", text).unwrap().sites, first: 1 }
    }

    fn with(text: &str) -> String {
        source(text).instrument(&BTreeSet::new()).text.replace("::campanile_model::mutant::", "")
    }

    #[test]
    fn a_mutant_stands_beside_what_was_there() {
        assert_eq!(
            with("fn f() -> impl Sized { a == b }"),
            "fn f() -> impl Sized { (match at(1, 1) { 0 => { a == b } _ => { (a) != (b) } }) }"
        );
        assert_eq!(
            with("fn f() -> bool { a.b(); c }"),
            "fn f() -> bool { if on(1) { return true; } if on(2) { return false; } if !on(3) { a.b(); } c }"
        );
        assert_eq!(
            with("fn f() -> impl Sized { match a { A => 1, B if b => 2, _ => 3 } }"),
            "fn f() -> impl Sized { match a { A if !on(1) => 1, \
             B if !on(2) && ((match at(3, 4) { 0 => { b } 3 => { true } _ => { false } })) => 2, _ => 3 } }"
        );
    }

    /// Only one is on at a time, so that a mutant's own text holds no other, and the new text stays short.
    #[test]
    fn inner_mutants_are_only_in_what_was_there() {
        assert_eq!(
            with("fn f() -> impl Sized { !(a == b) }"),
            "fn f() -> impl Sized { (match at(1, 1) \
             { 0 => { !((match at(2, 2) { 0 => { a == b } _ => { (a) != (b) } })) } _ => { (a == b) } }) }"
        );
    }

    #[test]
    fn what_does_not_compile_is_left_out_and_the_others_keep_their_numbers() {
        let source = source("fn f() -> impl Sized { a + b }");
        assert_eq!(source.mutants().map(|(id, _)| id).collect::<Vec<_>>(), [1, 2]);
        let text = |without: &[u32]| source.instrument(&without.iter().copied().collect()).text;
        assert!(text(&[1]).contains("at(2, 2)") && text(&[2]).contains("at(1, 1)"));
        assert_eq!(text(&[1, 2]), source.text);
    }

    #[test]
    fn pieces_say_what_is_of_which_mutant() {
        let source = source("fn f() -> impl Sized { !(a == b) }");
        let new = source.instrument(&BTreeSet::new());
        for piece in &new.pieces {
            assert!(new.text[piece.own.clone()].starts_with(" _ => {"));
            assert!(new.text[piece.site.clone()].contains(&format!("at({0}, {0})", piece.id)));
        }
        // The inner one ends first.
        let [inner, outer] = &new.pieces[..] else { panic!("{:?}", new.pieces) };
        assert!(outer.site.start < inner.site.start && inner.site.end < outer.site.end);
    }

    /// The product itself: what is written can be read again, and without mutants it is what it was.
    #[test]
    fn the_products_files_can_be_read_with_all_their_mutants() {
        let mut count = 0;
        for source in super::super::scope::sources(std::path::Path::new("..")).unwrap() {
            let new = source.instrument(&BTreeSet::new());
            assert!(syn::parse_file(&new.text).is_ok(), "{}", source.file);
            let all: BTreeSet<u32> = source.mutants().map(|(id, _)| id).collect();
            assert_eq!(source.instrument(&all).text, source.text);
            assert_eq!(new.pieces.len(), all.len());
            count += all.len();
        }
        assert!(count > 1000, "{count} mutants");
    }
}
