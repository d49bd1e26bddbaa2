//! Splits text into lines: keys, values, comments, quotes and continuations, as C tor does
//! (confline.c: `parse_config_line_from_str_verbose`; tor(1), "THE CONFIGURATION FILE FORMAT").

use crate::config::port_line::{is_space, quote};

/// One option as written in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawLine {
    /// The option as written, without `+` and `/`.
    pub(super) key: String,
    /// Its value; empty if there is none.
    pub(super) value: String,
    /// How it combines with earlier values.
    pub(super) mode: AssignMode,
    /// The line on which it begins, counted from 1.
    pub(super) line: usize,
}

/// How a line combines with the values of earlier files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AssignMode {
    /// It replaces them.
    Set,
    /// `+Option`: it adds to them.
    Append,
    /// `/Option`: it removes them.
    Clear,
}

/// A line that cannot be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Its number, counted from 1.
    pub(super) line: usize,
    /// The problem and the remedy.
    pub(super) problem: &'static str,
}

/// Parses all lines of a file.
///
/// # Errors
/// The first line that C tor refuses or truncates.
pub(super) fn parse(text: &str) -> Result<Vec<RawLine>, SyntaxError> {
    // C tor drops every carriage return when it reads a file.
    let text: String = text.chars().filter(|c| *c != '\r').collect();
    let mut cursor = Cursor { text: &text, at: 0 };
    let (mut line, mut counted) = (1, 0);
    let mut lines = Vec::new();
    loop {
        cursor.skip_to_key();
        if cursor.rest().is_empty() {
            return Ok(lines);
        }
        let passed = text.get(counted..cursor.at).unwrap_or_default();
        line += passed.bytes().filter(|byte| *byte == b'\n').count();
        counted = cursor.at;
        let error = |problem| SyntaxError { line, problem };
        let raw = cursor.read_line(line).map_err(error)?;
        if raw.key.contains('\0') || raw.value.contains('\0') {
            return Err(error("the line contains a NUL byte; remove it"));
        }
        if raw.key.is_empty() {
            return Err(error("the line has no option name; write NAME VALUE"));
        }
        lines.push(raw);
    }
}

/// A position in the text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Returns the text from the cursor on. The cursor only stops next to ASCII characters.
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Returns the byte at the cursor.
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips bytes for which `matches` is true.
    fn skip_while(&mut self, matches: impl Fn(u8) -> bool) {
        while self.byte().is_some_and(&matches) {
            self.at += 1;
        }
    }

    /// Skips to the end of the line, before its line break.
    fn skip_comment(&mut self) {
        self.skip_while(|byte| byte != b'\n');
    }

    /// Skips white space and comments.
    fn skip_to_key(&mut self) {
        self.skip_while(|byte| is_space(char::from(byte)));
        while self.byte() == Some(b'#') {
            self.skip_comment();
            self.skip_while(|byte| is_space(char::from(byte)));
        }
    }

    /// Reads a key and its value.
    fn read_line(&mut self, line: usize) -> Result<RawLine, &'static str> {
        let start = self.at;
        while let Some(byte) = self.byte()
            && !is_space(char::from(byte))
            && byte != b'#'
            && !self.rest().starts_with("\\\n")
        {
            self.at += 1;
        }
        let key = self.text.get(start..self.at).unwrap_or_default();
        self.skip_while(|byte| byte == b' ' || byte == b'\t');
        let value = match self.rest().strip_prefix('"') {
            Some(quoted) => self.read_quoted(quoted)?,
            None => self.read_unquoted(),
        };
        let (mode, key) = match key.split_at_checked(1) {
            Some(("+", key)) => (AssignMode::Append, key),
            Some(("/", key)) => (AssignMode::Clear, key),
            _ => (AssignMode::Set, key),
        };
        Ok(RawLine {
            key: key.to_owned(),
            value: match mode {
                AssignMode::Clear => String::new(),
                _ => value,
            },
            mode,
            line,
        })
    }

    /// Reads a quoted value; `quoted` follows the opening quote. It has no continuation lines.
    fn read_quoted(&mut self, quoted: &str) -> Result<String, &'static str> {
        let (bytes, rest) = quote::unquote(quoted).ok_or(
            "invalid quoted value; close it with a \" on the same line and use only the escapes \
             \\\\ \\\" \\' \\n \\r \\t \\xHH and \\NNN",
        )?;
        self.at = self.text.len() - rest.len();
        self.skip_while(|byte| byte == b' ' || byte == b'\t');
        if !matches!(self.byte(), None | Some(b'#' | b'\n')) {
            return Err(
                "text follows the quoted value; put the whole value into the quotes or remove them",
            );
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads an unquoted value with all its continuation lines.
    ///
    /// A comment ends the value, unless a continuation precedes it: then only the comment and its line
    /// break are left out.
    fn read_unquoted(&mut self) -> String {
        let start = self.at;
        let mut continued = false;
        while let Some(byte) = self.byte() {
            match byte {
                b'\n' => break,
                b'#' if !continued => break,
                b'#' => {
                    self.skip_comment();
                    self.skip_line_break();
                }
                b'\\' if self.rest().starts_with("\\\n") => {
                    continued = true;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        let written = self.text.get(start..self.at).unwrap_or_default();
        // Trim before joining: a file that ends within a continuation keeps its backslash.
        let written = written.trim_end_matches(is_space);
        match continued {
            true => join_continuations(written),
            false => written.to_owned(),
        }
    }

    /// Skips one line break, if there is one.
    fn skip_line_break(&mut self) {
        if self.byte() == Some(b'\n') {
            self.at += 1;
        }
    }
}

/// Removes comments and continuations from a value.
fn join_continuations(written: &str) -> String {
    let mut joined = String::new();
    let mut rest = written;
    while let Some(at) = rest.find(['#', '\\']) {
        let (plain, tail) = rest.split_at(at);
        joined.push_str(plain);
        rest = if let Some(tail) = tail.strip_prefix("\\\n") {
            tail
        } else if tail.starts_with('#') {
            tail.split_once('\n').map_or("", |(_, next)| next)
        } else {
            joined.push('\\');
            tail.strip_prefix('\\').unwrap_or_default()
        };
    }
    joined.push_str(rest);
    joined
}
