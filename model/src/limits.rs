//! Every bound that a client can meet, in one table. `docs/reference/limits.md` lists them for users, and a test holds
//! the two together.

use crate::Millis;

/// Bytes of a task's name; the characters allowed are `A-Z a-z 0-9 . _ - : /` and it starts with a letter or digit.
pub const NAME_BYTES: usize = 200;
/// Bytes of a namespace's name.
pub const NAMESPACE_BYTES: usize = 64;
/// Bytes of a task's payload as compact JSON.
pub const PAYLOAD_BYTES: usize = 256 << 10;
/// Schedules of one task.
pub const SCHEDULES: usize = 16;
/// Bytes of one schedule's text (cron expression, ISO 8601 repeat, zone name).
pub const SCHEDULE_BYTES: usize = 256;
/// Labels of one task.
pub const LABELS: usize = 32;
/// Bytes of a label's key, and of its value.
pub const LABEL_BYTES: usize = 128;
/// Bytes of a webhook's URL.
pub const URL_BYTES: usize = 2048;
/// Headers a webhook target may set.
pub const HEADERS: usize = 32;
/// Bytes of one header, name and value together.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES: usize = 128;
/// Idempotency keys remembered in one namespace.
pub const IDEMPOTENCY_KEYS: u64 = 1_000_000;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_TTL: Millis = Millis::from_mins(10);
/// Tasks in one batch request.
pub const BATCH_TASKS: usize = 10_000;
/// Bytes of a request's body, other than a batch.
pub const BODY_BYTES: usize = 1 << 20;
/// Bytes of a batch's body.
pub const BATCH_BODY_BYTES: usize = 32 << 20;
/// Bytes of one line of a batch.
pub const BATCH_LINE_BYTES: usize = BODY_BYTES;
/// Batches that a node works on at one time.
pub const BATCHES: usize = 24;
/// Bytes of them, together; a body that does not say its size counts as the largest.
pub const BATCHES_BYTES: usize = 64 << 20;
/// How long a client may take to send a request's head, and again its body.
pub const REQUEST_READ: Millis = Millis::from_secs(30);
/// Items on one page of a list.
pub const PAGE_ITEMS: usize = 1000;
/// Items on one page when the client does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 100;
/// Rows a filtered list looks at before it returns what it has with a page token.
pub const SCAN_ROWS: usize = 10_000;
/// Occurrences a preview computes.
pub const PREVIEW_COUNT: usize = 1000;
/// Occurrences of one task decided in one log entry; more are decided by the entries after it.
pub const CATCH_UP_PER_ENTRY: usize = 10_000;
/// Attempts a retry policy may ask for.
pub const MAX_ATTEMPTS: u32 = 100;
/// Longest timeout of an attempt.
pub const TIMEOUT_MAX: Millis = Millis::from_hours(1);
/// Shortest `catch_up.grace`: what is overdue by less fires under every policy.
pub const GRACE_MIN: Millis = Millis::from_secs(1);
/// Shortest period of `every`.
pub const EVERY_MIN: Millis = Millis(100);
/// Runs that `overlap: buffer_all` holds back.
pub const BUFFERED_RUNS: usize = 1000;
/// Live runs that a task lists, for its policies to look at: those beside each other under `allow` and `skip`, and those
/// that are found when an update gives it a policy that looks at them.
pub const TRACKED_RUNS: usize = 1000;
/// Attempts kept in a run's history; older ones are dropped from the row, their count is not.
pub const ATTEMPT_HISTORY: usize = 10;
/// Bytes of an attempt's error message.
pub const ERROR_BYTES: usize = 256;
/// Ledger lines kept of one task, whatever its retention says.
pub const LEDGER_LINES: u32 = 10_000;
