//! C-style quoting of a unix socket's path (C tor: `unescape_string`).

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Reads a quoted string from behind its opening quote.
///
/// Gives its bytes and what follows the closing quote; `None` if the quote is not closed on this
/// line or an escape is not one of C tor's.
pub(crate) fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        match byte {
            // A quote is never a part of a longer UTF-8 sequence, so the slice holds.
            b'"' => return Some((out, text.get(at..)?)),
            b'\n' => return None,
            b'\\' => {
                let (value, length) = escape(bytes.get(at..)?)?;
                out.push(value);
                at += length;
            }
            _ => out.push(byte),
        }
    }
}

/// Reads what follows a backslash: the byte it stands for, and how many characters that took.
fn escape(rest: &[u8]) -> Option<(u8, usize)> {
    let digit = |at: usize, base| {
        rest.get(at)
            .and_then(|b| char::from(*b).to_digit(base))
            .and_then(|d| u16::try_from(d).ok())
    };
    Some(match *rest.first()? {
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        byte @ (b'"' | b'\'' | b'\\') => (byte, 1),
        b'x' | b'X' => {
            let value = digit(1, 16)? * 16 + digit(2, 16)?;
            (u8::try_from(value).ok()?, 3)
        }
        b'0'..=b'7' => {
            let mut value = 0;
            let mut length = 0;
            while length < 3
                && let Some(d) = digit(length, 8)
            {
                value = value * 8 + d;
                length += 1;
            }
            (u8::try_from(value).ok()?, length)
        }
        _ => return None,
    })
}

/// A path as it stands behind `unix:`: bare where that reads back, quoted otherwise.
pub(super) fn path(path: &Path) -> String {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\\' | '#');
    if let Some(text) = path.to_str()
        && text.chars().all(plain)
    {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push('"');
    out
}
