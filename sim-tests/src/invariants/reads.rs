//! What reads show is what the log had made by then. Whatever an answer shows of a task or a run, all of it is as one
//! state of the tables has it, of those between the question and the answer (of the earlier ones too, where staleness was
//! asked for). A page of a list holds no more than was asked for, in order, nothing twice; what belongs to the list in
//! that state is on it, and nothing else. A ledger's lines are what was decided. What a write answers of its task is what
//! an entry made of it. A preview is, to the millisecond, what the
//! second opinion says.
//!
//! What one task's requests make of each other is `linearizable`'s; here the log is the witness.

mod ledger;
mod page;
mod previews;
mod runs;
mod tasks;
#[cfg(test)]
mod tests;

use super::index::{Facts, Operation};
use super::report::Report;
use super::story;
use super::tables::{Tables, Window};
use crate::history::{Action, Outcome};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    if !facts.has_log() {
        return Finding::NotApplicable { needs: "what the log did" };
    }
    let mut report = Report::new("reads");
    let tables = Tables::new(facts);
    let mut reader = Reader {
        tables: &tables,
        tasks: Default::default(),
        runs: Default::default(),
        ledgers: Default::default(),
        stories: Stories::default(),
    };
    for operation in &facts.operations {
        let Some((t, outcome)) = operation.acknowledged() else { continue };
        let asked = Asked { tables: &tables, operation, t, window: tables.shown(operation, t) };
        if let Some(judged) = reader.judge(&asked, outcome) {
            report.hold(judged.is_ok(), t, || {
                format!("operation {}: {}", operation.id, judged.as_ref().err().map_or("", String::as_str))
            });
        }
    }
    report.finish_if_any("reads")
}

/// A read that was answered.
struct Asked<'a, 'f, 'h> {
    tables: &'a Tables<'f, 'h>,
    operation: &'a Operation<'h>,
    /// When it was answered.
    t: u64,
    window: Window,
}

/// What is wrong with an answer, or with the state at one entry as its explanation.
type Judged = Result<(), String>;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, shown: &T, had: &T) -> Judged {
    if shown == had { Ok(()) } else { Err(format!("{what} is {shown:?} and was {had:?}")) }
}

/// Whether one of these states explains an answer; else what speaks against the last of them.
fn explained(moments: impl IntoIterator<Item = u64>, mut fits: impl FnMut(u64) -> Judged) -> Judged {
    let mut tried = 0;
    let mut against = String::from("there is no state");
    for index in moments {
        match fits(index) {
            Ok(()) => return Ok(()),
            Err(why) => against = format!("entry {index}: {why}"),
        }
        tried += 1;
    }
    Err(format!("none of {tried} states between question and answer explains it; after {against}"))
}

/// The stories of tasks, told once somebody asks.
#[derive(Default)]
struct Stories<'h>(Option<Vec<story::Story<'h>>>);

impl<'h> Stories<'h> {
    fn of(&mut self, facts: &Facts<'h>) -> &[story::Story<'h>] {
        self.0.get_or_insert_with(|| story::tell(facts.history))
    }
}

struct Reader<'a, 'f, 'h> {
    tables: &'a Tables<'f, 'h>,
    tasks: page::Pages<tasks::Key>,
    runs: page::Pages<std::cmp::Reverse<runs::Place>>,
    ledgers: page::Pages<runs::Place>,
    stories: Stories<'h>,
}

impl<'h> Reader<'_, '_, 'h> {
    /// Nothing, where nothing was read.
    fn judge(&mut self, asked: &Asked<'_, '_, 'h>, outcome: &Outcome) -> Option<Judged> {
        Some(match (asked.operation.action, outcome) {
            (action, Outcome::Written { task }) => tasks::written(asked, action, task),
            (Action::Get { name }, Outcome::Read { task }) => tasks::one(asked, name, task),
            (Action::GetRun { run }, Outcome::Run { run: view }) => runs::one(asked, *run, view),
            (Action::CancelRun { run }, Outcome::Run { run: view }) => runs::cancelled(asked, *run, view),
            (Action::ListTasks { filter, page }, Outcome::Tasks { items, next_page_token }) => {
                tasks::page(asked, &mut self.tasks, filter, page, items, next_page_token.is_some())
            }
            (Action::ListRuns { name, state, page }, Outcome::Runs { items, next_page_token }) => {
                runs::page(asked, &mut self.runs, (name, *state), page, items, next_page_token.is_some())
            }
            (Action::Ledger { name, filter, page }, Outcome::Ledger { ledger }) => {
                ledger::page(asked, &mut self.ledgers, (name, filter), page, ledger)
            }
            (Action::Preview { name, count, after }, Outcome::Preview { items }) => {
                let stories = self.stories.of(self.tables.facts);
                previews::of_task(asked, stories, name, (*count, *after), items)?
            }
            (Action::PreviewSpec { spec, count, after }, Outcome::Preview { items }) => {
                previews::of_spec(asked, spec, (*count, *after), items)
            }
            (action, _) if action.is_read() => Err("was answered with what it did not ask for".into()),
            _ => return None,
        })
    }
}
