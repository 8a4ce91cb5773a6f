//! Pages of a list, one after the other: each in order, none over its limit, and nothing left out or shown twice.
//!
//! A full page ends with its last item. One that is not full and has a page after it was ended by the number of rows that
//! it looked at: where exactly is not told, so what lies between its last item and the next page's first has to be shown
//! only if it belonged there all the time.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::Judged;
use crate::invariants::tables::Window;

/// Whether something belongs to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    Surely,
    /// It may have gone without a trace, or nobody knows its definition.
    Perhaps,
}

/// What belongs to a list in one state, in the list's order.
pub type List<K> = Vec<(K, Belongs)>;

/// A page as it was answered.
pub struct Page<K> {
    pub op: u64,
    pub follows: Option<u64>,
    /// Of its items.
    pub shown: Vec<K>,
    pub limit: u64,
    /// It says that there is another.
    pub more: bool,
    pub window: Window,
}

/// Where a page ended.
#[derive(Clone)]
struct End<K> {
    /// The last that is known to lie before it.
    after: Option<K>,
    /// That is where it is.
    exact: bool,
    /// The list may have been left anywhere behind that since this state.
    since: u64,
}

/// The pages so far, by operation.
pub struct Pages<K>(BTreeMap<u64, End<K>>);

impl<K> Default for Pages<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// How the tables answer for a page.
pub struct Witness<M, F, L> {
    /// The states of a window that may differ.
    pub moments: M,
    /// Whether the items are as a state has them.
    pub fits: F,
    /// The list in a state, and how many rows had to be looked at for it at most.
    pub list: L,
    /// Rows that one page looks at.
    pub scan: u64,
}

impl<K: Ord + Clone + Debug> Pages<K> {
    pub fn judge<M, F, L>(&mut self, page: Page<K>, witness: Witness<M, F, L>) -> Judged
    where
        M: Fn(Window) -> Vec<u64>,
        F: Fn(u64) -> Judged,
        L: Fn(u64) -> (List<K>, u64),
    {
        let start = End { after: None, exact: true, since: page.window.first };
        let from = match page.follows {
            None => start,
            // One that is not in the history tells nothing of where this page begins.
            Some(op) => self.0.get(&op).cloned().unwrap_or(End { exact: false, ..start }),
        };
        self.0.insert(page.op, end_of(&page, &from));
        let Page { shown, limit, more, window, .. } = &page;
        if shown.len() as u64 > *limit {
            return Err(format!("a page of {limit} has {} items", shown.len()));
        }
        if let Some(pair) = shown.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("{:?} stands before {:?}", pair[0], pair[1]));
        }
        if let (Some(after), Some(first)) = (&from.after, shown.first())
            && first <= after
        {
            return Err(format!("{first:?} is on a page after that of {after:?}"));
        }
        super::explained((witness.moments)(*window), |index| {
            (witness.fits)(index)?;
            let (list, rows) = (witness.list)(index);
            if *more && (shown.len() as u64) < *limit && rows < witness.scan {
                return Err(format!("the page has room, and ended before it had looked at {} rows", witness.scan));
            }
            is_whole(&list, shown, &from, *more)
        })?;
        if from.exact {
            return Ok(());
        }
        let since = Window { first: from.since.min(window.first), last: window.last };
        let lists: Vec<List<K>> = (witness.moments)(since).into_iter().map(|index| (witness.list)(index).0).collect();
        let always = |key: &K| lists.iter().all(|list| belongs(list, key) == Some(Belongs::Surely));
        let in_gap = |key: &K| {
            let behind = from.after.as_ref().is_none_or(|after| key > after);
            behind && shown.first().map_or(!*more, |first| key < first)
        };
        match lists.first().into_iter().flatten().find(|(key, _)| in_gap(key) && always(key)) {
            Some((key, _)) => Err(format!("{key:?} was there all the time, and is on no page")),
            None => Ok(()),
        }
    }
}

fn end_of<K: Clone>(page: &Page<K>, from: &End<K>) -> End<K> {
    let since = page.window.first;
    match page.shown.last() {
        Some(last) => End { after: Some(last.clone()), exact: page.shown.len() as u64 >= page.limit, since },
        None => End { after: from.after.clone(), exact: false, since: if from.exact { since } else { from.since } },
    }
}

fn belongs<K: Ord>(list: &List<K>, key: &K) -> Option<Belongs> {
    list.binary_search_by(|(other, _)| other.cmp(key)).ok().map(|place| list[place].1)
}

/// Whether a page shows all of a list that lies between where it begins and where it ends, and nothing else.
fn is_whole<K: Ord + Debug>(list: &List<K>, shown: &[K], from: &End<K>, more: bool) -> Judged {
    if let Some(key) = shown.iter().find(|key| belongs(list, key).is_none()) {
        return Err(format!("{key:?} does not belong to the list"));
    }
    let begins = |key: &K| match (from.exact, shown.first()) {
        (true, _) => from.after.as_ref().is_none_or(|after| key > after),
        (false, Some(first)) => key > first,
        (false, None) => false,
    };
    let ends = |key: &K| !more || shown.last().is_some_and(|last| key < last);
    let owed = list.iter().filter(|(key, belongs)| *belongs == Belongs::Surely && begins(key) && ends(key));
    match owed.map(|(key, _)| key).find(|key| shown.binary_search(key).is_err()) {
        Some(key) => Err(format!("{key:?} is left out")),
        None => Ok(()),
    }
}
