//! Limits on what hyper reads, the same towards clients and sites.

/// Longest head of a message, in bytes; a longer request is answered with 431. Cookies are what makes
/// heads long.
pub(super) const MAX_HEAD: usize = 32 * 1024;
/// Most header lines in a message; a request with more is answered with 431.
pub(super) const MAX_HEADERS: usize = 256;
/// Most bytes of a connection that hyper buffers, in each direction.
pub(super) const MAX_BUFFER: usize = 64 * 1024;
