//! What the simulator sees inside a node, what it may break there, and what it wants to have seen.
//!
//! None of it is in a real build: there the macros expand to `false` and to nothing. In the simulated build the state
//! is the thread's, because one simulation has one thread, and one process has one simulation.

#[cfg(madsim)]
pub use simulated::*;

/// Whether a sabotage is switched on. Always `false` in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

/// Whether a sabotage is switched on.
#[cfg(madsim)]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        $crate::sim::is_planted($crate::sim::Bug::$bug)
    };
}

/// Counts that something rare has happened. Nothing in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! sometimes {
    ($mark:ident) => {};
}

/// Counts that something rare has happened.
#[cfg(madsim)]
#[macro_export]
macro_rules! sometimes {
    ($mark:ident) => {
        $crate::sim::mark($crate::sim::Mark::$mark)
    };
}

/// Tells the simulator of a row that is written, as a value of `sim::Row`. Nothing in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! wrote {
    ($row:ident, $value:expr) => {};
}

/// Tells the simulator of a row that is written, as a value of `sim::Row`.
#[cfg(madsim)]
#[macro_export]
macro_rules! wrote {
    ($row:ident, $value:expr) => {
        $crate::sim::wrote($crate::sim::Row::$row($value))
    };
}

#[cfg(madsim)]
mod simulated {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use crate::{Entry, NodeState, Reason, Reply, Run, TaskId, TaskState, Timestamp};

    /// Defines an enum with a name and a sentence for each of its values.
    macro_rules! named {
        ($(#[$doc:meta])* $name:ident { $($value:ident, $text:literal, $about:literal;)* }) => {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum $name { $(#[doc = $about] $value,)* }

            impl $name {
                pub const ALL: &[Self] = &[$(Self::$value,)*];

                pub fn name(self) -> &'static str {
                    match self { $(Self::$value => $text,)* }
                }

                pub fn about(self) -> &'static str {
                    match self { $(Self::$value => $about,)* }
                }

                pub fn by_name(name: &str) -> Option<Self> {
                    Self::ALL.iter().copied().find(|value| value.name() == name)
                }
            }
        };
    }

    named! {
        /// A sabotage that can be switched on, to see whether the checkers notice.
        Bug {
            SkipCompareAndSet, "skip_compare_and_set", "a fire is applied without looking whether the occurrence is still due";
        }
    }

    named! {
        /// Something rare that a sweep must have seen, or its seeds prove little.
        Mark {
            FireWasNoOp, "fire_was_no_op", "a fire line found its occurrence decided already";
        }
    }

    /// A row as a log entry left it.
    #[derive(Clone, Debug)]
    pub enum Row {
        Task(Box<TaskState>),
        Run(Box<Run>),
        Lapse(Lapse),
        Node(NodeState),
    }

    /// Occurrences of a task that did not fire.
    #[derive(Clone, Copy, Debug)]
    pub struct Lapse {
        pub task: TaskId,
        pub version: u32,
        pub first: Timestamp,
        pub last: Timestamp,
        pub count: u64,
        pub reason: Reason,
    }

    /// An entry that a node has applied.
    #[derive(Debug)]
    pub struct Applied<'a> {
        pub index: u64,
        pub term: u64,
        pub entry: &'a Entry,
        pub replies: &'a [Reply],
        pub rows: Vec<Row>,
    }

    type Observer = Box<dyn FnMut(Applied<'_>)>;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static MARKS: RefCell<BTreeMap<Mark, u64>> = const { RefCell::new(BTreeMap::new()) };
        static ROWS: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
        static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
    }

    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    pub fn mark(mark: Mark) {
        MARKS.with_borrow_mut(|marks| *marks.entry(mark).or_default() += 1);
    }

    /// How often each mark was hit, the others with zero.
    pub fn marks() -> BTreeMap<Mark, u64> {
        MARKS.with_borrow(|hit| Mark::ALL.iter().map(|mark| (*mark, hit.get(mark).copied().unwrap_or(0))).collect())
    }

    /// Whom to tell of every entry that any node applies.
    pub fn observe(observer: impl FnMut(Applied<'_>) + 'static) {
        OBSERVER.set(Some(Box::new(observer)));
    }

    /// The store tells of a row it writes.
    pub fn wrote(row: Row) {
        ROWS.with_borrow_mut(|rows| rows.push(row));
    }

    /// The state machine tells of an entry it has applied, right after it.
    pub fn applied(index: u64, term: u64, entry: &Entry, replies: &[Reply]) {
        let rows = ROWS.take();
        OBSERVER.with_borrow_mut(|observer| {
            if let Some(observer) = observer {
                observer(Applied { index, term, entry, replies, rows });
            }
        });
    }
}
