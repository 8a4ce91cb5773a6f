//! `docs/reference/limits.md` names every limit with its value.

use campanile_model::limits;

/// Names and values of the limits listed.
macro_rules! values {
    ($($name:ident)*) => { [$((stringify!($name), limits::$name.to_string())),*] };
}

#[test]
fn the_page_lists_every_limit_with_its_value() {
    let values = values! {
        NAME_BYTES NAMESPACE_BYTES PAYLOAD_BYTES SCHEDULES SCHEDULE_BYTES LABELS LABEL_BYTES URL_BYTES HEADERS
        HEADER_BYTES IDEMPOTENCY_KEY_BYTES IDEMPOTENCY_KEYS IDEMPOTENCY_TTL BATCH_TASKS BODY_BYTES BATCH_BODY_BYTES
        BATCH_LINE_BYTES BATCHES BATCHES_BYTES REQUEST_READ PAGE_ITEMS PAGE_ITEMS_DEFAULT SCAN_ROWS PREVIEW_COUNT
        CATCH_UP_PER_ENTRY MAX_ATTEMPTS TIMEOUT_MAX GRACE_MIN EVERY_MIN BUFFERED_RUNS TRACKED_RUNS ATTEMPT_HISTORY
        ERROR_BYTES LEDGER_LINES
    };
    let declared: Vec<&str> = include_str!("../src/limits.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .collect();
    let mut listed: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    let mut sorted = declared.clone();
    sorted.sort_unstable();
    assert_eq!(listed, sorted, "this test does not list every limit");

    let page = include_str!("../../docs/reference/limits.md");
    for (name, value) in values {
        let row = format!("| `{name}` | `{value}`");
        assert!(page.contains(&row), "docs/reference/limits.md has no row that starts {row}");
    }
}
