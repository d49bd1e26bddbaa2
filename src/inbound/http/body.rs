//! The one type of body that responses to clients and requests to sites have.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

/// The body of a response to a client, or of a request to a site.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body ends early.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Returns a body that consists of `bytes`.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}
