//! One day in the life of the state machine as a text that people can read: commands, replies, effects, rows.
//! It is compared with `tests/golden/apply.txt`; `UPDATE_GOLDEN=1 cargo test -p campanile-store` writes it anew.

use std::fmt::Write;
use std::ops::Bound;
use std::path::Path;

use campanile_model::codec::{self, Versioned};
use campanile_model::*;

use super::testing::*;
use crate::effect::TaskTimer;
use crate::{Effect, keys};

struct Transcript {
    m: Machine,
    text: String,
}

impl Transcript {
    fn say(&mut self, what: &str, secs: i64, commands: Vec<Command>) -> Vec<Reply> {
        self.m.now = at(secs);
        let replies = self.m.run_all(commands.clone());
        writeln!(self.text, "\n## {what}\nentry {} at +{secs}s", self.m.index).unwrap();
        for (command, reply) in commands.iter().zip(&replies) {
            writeln!(self.text, "  > {}", short(command)).unwrap();
            writeln!(self.text, "  < {}", short(reply)).unwrap();
        }
        for effect in &self.m.effects {
            writeln!(self.text, "  * {}", short(effect)).unwrap();
        }
        replies
    }

    fn put(&mut self, what: &str, secs: i64, name: &str, spec: TaskSpec, next: Option<Next>) -> TaskId {
        let put = self.m.prepared_put(name, spec, PutMode::Upsert, next);
        match self.say(what, secs, vec![Command::PutTask(Box::new(put))]).remove(0) {
            Reply::Task(reply) => reply.id,
            reply => panic!("{reply:?}"),
        }
    }

    fn fire(&mut self, what: &str, secs: i64, id: TaskId, decision: Decision, next: Option<Next>) {
        let line = self.m.line(id, decision, next);
        self.say(what, secs, vec![Command::Fire { lines: vec![line] }]);
    }

    fn outcome(&mut self, what: &str, secs: i64, run: RunId, result: Outcome) {
        let token = self.m.get_run(run).token;
        let line = OutcomeLine { run, token, result, status: Some(503), error: "HTTP 503".into() };
        self.say(what, secs, vec![Command::Outcomes { lines: vec![line] }]);
    }

    fn last_live(&self) -> RunId {
        self.m.view().live_runs(None, usize::MAX).unwrap().last().expect("a live run").id
    }

    /// Every row of the state.
    fn rows(&mut self, what: &str) {
        let view = self.m.view();
        writeln!(self.text, "\n## {what}\nrows at index {}, time {}", view.index(), view.time()).unwrap();
        for family in keys::FAMILIES {
            for row in view.read().scan(family, Bound::Unbounded, Bound::Unbounded, false) {
                let (key, value) = row.unwrap();
                let (key, value) = match family {
                    keys::META if key == keys::SHARDS => ("shards".into(), format!("{} bytes", value.len())),
                    keys::META if key == keys::GLOBALS => {
                        ("globals".into(), row_text::<crate::tables::Globals>(&value))
                    }
                    keys::META => ("position".into(), row_text::<crate::tables::Position>(&value)),
                    keys::NAMES => (escaped(&key), row_text::<crate::tables::NameRow>(&value)),
                    keys::TASKS => (hex(&key), row_text::<TaskState>(&value)),
                    keys::SPECS => (hex(&key), row_text::<TaskSpec>(&value)),
                    keys::VERSIONS => (hex(&key), row_text::<crate::tables::VersionRow>(&value)),
                    keys::TIME => {
                        let timer = keys::read_timer(&key).unwrap();
                        let value = match timer.timer {
                            Timer::Task(_) => row_text::<TaskTimer>(&value),
                            Timer::Retry(_) => row_text::<crate::tables::RetryTimer>(&value),
                            Timer::Expire(_) => String::new(),
                        };
                        (format!("{} {:?}", timer.wake_at, timer.timer), value)
                    }
                    keys::LIVE | keys::RUNS => (hex(&key), row_text::<Run>(&value)),
                    keys::LEDGER => (short(&keys::read_ledger(&key).unwrap()), row_text::<LedgerRow>(&value)),
                    keys::IDEM => (escaped(&key), row_text::<IdempotencyRow>(&value)),
                    keys::IDEM_EXPIRY => (hex(&key), String::new()),
                    _ => (hex(&key), row_text::<NodeState>(&value)),
                };
                writeln!(self.text, "  {:<11} {key} = {value}", family.0).unwrap();
            }
        }
        writeln!(self.text, "  digest {}", view.digest().unwrap()).unwrap();
    }
}

fn row_text<T: Versioned + std::fmt::Debug>(value: &[u8]) -> String {
    short(&codec::decode::<T>(value).unwrap())
}

fn hex(key: &[u8]) -> String {
    key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn escaped(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// The debug form, with instants as seconds since the start, and shard lists by their length.
fn short(value: &dyn std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    while let Some(start) = text.find("Timestamp(") {
        let end = start + text[start..].find(')').unwrap();
        let millis: i64 = text[start + 10..end].parse().unwrap();
        let instant = match millis.saturating_sub(at(0).as_millis()) {
            _ if millis == i64::MIN => "never".to_string(),
            offset if offset % 1000 == 0 => format!("{:+}s", offset / 1000),
            offset => format!("{offset:+}ms"),
        };
        text.replace_range(start..=end, &instant);
    }
    if let Some(start) = text.find("shards: [(") {
        let end = start + text[start..].find(")]").unwrap();
        let count = text[start..end].matches("ShardId(").count();
        text.replace_range(start..end + 2, &format!("shards: [{count} shards]"));
    }
    text
}

fn tell() -> String {
    let mut t = Transcript { m: Machine::empty(), text: "# A transcript of the state machine\n".into() };
    let shards = |owner| (0..ShardId::COUNT).map(|shard| (ShardId(shard), NodeId(owner))).collect::<Vec<_>>();
    t.say("The first node comes up", 0, vec![Command::NodeUp { node: NodeId(1), incarnation: 11, shards: shards(1) }]);
    let once = t.put("A one-shot", 1, "once", one_shot(10), next(10));
    let every = t.put("A recurring task", 2, "every", with_overlap(Overlap::BufferOne), next(62));
    t.fire("The one-shot fires", 10, once, Decision::Fire, None);
    let first = t.last_live();
    t.outcome("Its attempt fails and is to be repeated", 11, first, Outcome::RetryAfter(Millis::from_secs(2)));
    let token = t.m.get_run(first).token;
    let retry = |expected| Command::Attempts {
        lines: vec![AttemptLine { run: first, expected, action: AttemptAction::Retry }],
    };
    t.say("Too early for that", 12, vec![retry(token)]);
    t.say("Now it is time", 13, vec![retry(token)]);
    t.outcome("It succeeds", 14, first, Outcome::Succeeded);
    t.fire("The recurring task fires", 62, every, Decision::Fire, next(122));
    let lost = t.last_live();
    t.fire("And again, while its run is live", 122, every, Decision::Fire, next(182));
    t.fire("And again: the waiting run gives way", 182, every, Decision::Fire, next(242));
    t.say(
        "Its node is lost",
        190,
        vec![
            Command::NodeUp { node: NodeId(2), incarnation: 21, shards: Vec::new() },
            Command::NodeLost { node: NodeId(1), shards: shards(2) },
        ],
    );
    t.outcome("What the lost node says is refused", 191, lost, Outcome::Succeeded);
    let expected = t.m.get_run(lost).token;
    let lines = vec![AttemptLine { run: lost, expected, action: AttemptAction::Repeat }];
    t.say("The attempt is repeated elsewhere", 192, vec![Command::Attempts { lines }]);
    t.outcome("And succeeds: the waiting run starts", 193, lost, Outcome::Succeeded);
    t.say(
        "A node gives up a shard",
        194,
        vec![
            Command::NodeUp { node: NodeId(3), incarnation: 31, shards: Vec::new() },
            Command::MoveShards { shards: vec![(ShardId(7), NodeId(3))] },
        ],
    );
    let lapse = Decision::Lapse { last: at(482), count: 5, reason: Reason::BeyondWindow };
    t.fire("A long time later, occurrences were missed", 5000, every, lapse, next(542));
    let trigger =
        TriggerTask { task: named("every"), idempotency: Some(Idempotency { key: "again".into(), fingerprint: 5 }) };
    t.say(
        "A pause while something is due is a conflict",
        5001,
        vec![Command::PauseTask(PauseTask { task: named("every"), if_version: None })],
    );
    let line = t.m.line(every, Decision::Lapse { last: at(4982), count: 75, reason: Reason::BeyondWindow }, next(5042));
    t.say(
        "Prepared, it settles that first",
        5002,
        vec![
            Command::Fire { lines: vec![line] },
            Command::PauseTask(PauseTask { task: named("every"), if_version: Some(1) }),
        ],
    );
    let lapse = Decision::Lapse { last: at(5042), count: 1, reason: Reason::Paused };
    t.fire("Paused, it does not fire", 5042, every, lapse, next(5102));
    t.say(
        "Triggered by hand, and asked twice",
        5050,
        vec![Command::TriggerTask(trigger.clone()), Command::TriggerTask(trigger)],
    );
    t.rows("The state");
    t.say(
        "The ledger is trimmed, the recurring task deleted",
        5060,
        vec![
            Command::TrimLedger { task: every, before: at(5000), max_lines: 3 },
            Command::DeleteTask(DeleteTask { task: named("every"), if_version: None, cancel_runs: true }),
        ],
    );
    t.say(
        "What is left goes, in small steps",
        90_000,
        vec![
            Command::TrimTimers { before: at(90_000) },
            Command::ExpireTask { task: every, max_lines: 3 },
            Command::ExpireTask { task: every, max_lines: 3 },
            Command::ExpireTask { task: once, max_lines: 3 },
            Command::ExpireKeys { before: at(90_000), max_keys: 10 },
        ],
    );
    let ended = t.m.effects.iter().any(|effect| matches!(effect, Effect::RunEnded { .. }));
    assert!(!ended, "nothing was live any more");
    t.rows("What remains");
    t.text
}

#[test]
fn the_state_machine_behaves_as_written_down() {
    let path = Path::new("tests/golden/apply.txt");
    let told = tell();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &told).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    if let Some((number, (told, written))) =
        told.lines().zip(written.lines()).enumerate().find(|(_, (told, written))| told != written)
    {
        panic!("line {}:\n  written {written}\n  told    {told}", number + 1);
    }
    assert_eq!(told.lines().count(), written.lines().count(), "the transcript has another length");
}
