//! OpenAPI schemas of the types whose JSON form is not the one their fields suggest.

use std::borrow::Cow;

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{OneOfBuilder, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::{Json, Millis, NodeId, OccurrenceId, Ratio, RunId, Schedule, TaskId, Timestamp, Token};

/// A schema of one primitive type with a description and an example.
macro_rules! primitive {
    ($ty:ty, $kind:expr, $format:expr, $description:literal, $example:expr) => {
        impl PartialSchema for $ty {
            fn schema() -> RefOr<Schema> {
                let format: Option<KnownFormat> = $format;
                ObjectBuilder::new()
                    .schema_type($kind)
                    .format(format.map(SchemaFormat::KnownFormat))
                    .description(Some($description))
                    .examples([serde_json::json!($example)])
                    .into()
            }
        }

        impl ToSchema for $ty {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($ty))
            }
        }
    };
}

primitive!(
    Timestamp,
    Type::String,
    Some(KnownFormat::DateTime),
    "RFC 3339 instant with offset, to the millisecond",
    "2026-12-01T09:00:00Z"
);
primitive!(Millis, Type::String, None, "span of time: 500ms, 60s, 1h30m, 7d, or ISO 8601 (PT15M)", "60s");
primitive!(TaskId, Type::String, None, "id of a task", "t81923");
primitive!(RunId, Type::String, None, "id of a run", "r91234");
primitive!(OccurrenceId, Type::String, None, "task, nominal instant and origin", "t81923-1763697600000");
primitive!(Token, Type::Integer, Some(KnownFormat::Int64), "fencing token: compare per run", 91234);
primitive!(NodeId, Type::Integer, Some(KnownFormat::Int64), "id of a node", 1);
primitive!(Ratio, Type::Number, None, "factor, to the thousandth", 0.2);

impl PartialSchema for Json {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::SchemaType::AnyValue)
            .description(Some("any JSON value"))
            .into()
    }
}

impl ToSchema for Json {}

impl PartialSchema for Schedule {
    fn schema() -> RefOr<Schema> {
        let one = |name: &str, schema: RefOr<Schema>| ObjectBuilder::new().property(name, schema).required(name);
        let text = |example: &str| {
            RefOr::T(ObjectBuilder::new().schema_type(Type::String).examples([serde_json::json!(example)]).into())
        };
        let reference = |name: &str| RefOr::Ref(Ref::from_schema_name(name));
        OneOfBuilder::new()
            .item(one("at", reference("Timestamp")))
            .item(one("delay", reference("Millis")))
            .item(one("every", reference("Millis")))
            .item(
                one("cron", text("0 30 2 * * *"))
                    .property("time_zone", text("Europe/Berlin"))
                    .property("dst", reference("Dst")),
            )
            .item(one("repeat", text("R3/2026-01-31T09:00:00+08:00/P1M")))
            .into()
    }
}

impl ToSchema for Schedule {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Timestamp::name().into(), Timestamp::schema()));
        schemas.push((Millis::name().into(), Millis::schema()));
        schemas.push((crate::Dst::name().into(), crate::Dst::schema()));
    }
}
