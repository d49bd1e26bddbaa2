//! C-style quoting of Unix socket paths (C tor: `unescape_string`).

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Unquotes a string; `text` starts after its opening quote.
///
/// Returns its bytes and the text after the closing quote; `None` if the quote is not closed on
/// this line, or an escape is not one of C tor's.
pub(crate) fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        match byte {
            // A quote is never part of a longer UTF-8 sequence, so this is a character boundary.
            b'"' => return Some((out, text.get(at..)?)),
            b'\n' => return None,
            b'\\' => {
                let (value, length) = parse_escape(bytes.get(at..)?)?;
                out.push(value);
                at += length;
            }
            _ => out.push(byte),
        }
    }
}

/// Parses the characters after a backslash; returns the byte they encode, and their number.
fn parse_escape(rest: &[u8]) -> Option<(u8, usize)> {
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

/// Formats a path as it is written after `unix:`: bare if that parses back, quoted otherwise.
pub(super) fn quote_path(path: &Path) -> String {
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
