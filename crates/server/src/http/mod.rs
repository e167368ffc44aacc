//! Requests as the API sees them, and answers as HTTP sees them.

mod answer;
mod gzip;
mod media;
mod query;
mod request;

pub use answer::{
    Answer, Body, LongRunning, answer, full, hold, json, json_bytes, page_not_found, status_answer,
    status_answer_as, stream, text, warn, without_body,
};
pub use gzip::{accepts_gzip, compress, is_compressible};
pub use media::{Encoding, Media, Offer, Shape, content_type, is_pretty};
pub use query::Query;
pub(crate) use query::decode_segment;
pub use request::{Attributes, Target};
