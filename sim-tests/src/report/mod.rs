//! What a judged history looks like: a summary as data, and its forms for people, programs and CI.

mod html;
mod junit;
mod summary;
mod text;
mod timeline;

pub use html::html;
pub use junit::{Case, junit};
pub use summary::{Facts, FindingLine, Judgement, Outcomes, Summary};
pub use text::text;
