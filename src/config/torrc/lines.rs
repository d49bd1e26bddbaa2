//! From text to lines: keys, values, comments, quotes and continuations, as C tor reads them
//! (confline.c: `parse_config_line_from_str_verbose`; tor(1), "THE CONFIGURATION FILE FORMAT").

use crate::config::port_line::quote;

/// One option as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    /// The option, without `+` and `/`, as written.
    pub(super) key: String,
    /// Its value; empty if there is none.
    pub(super) value: String,
    /// How it joins what was said before.
    pub(super) mode: Mode,
    /// The line on which it begins, counted from 1.
    pub(super) line: usize,
}

/// How a line joins what earlier files said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It takes their place.
    Set,
    /// `+Option`: it is added.
    Append,
    /// `/Option`: nothing is left of it.
    Clear,
}

/// A line that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Its number, counted from 1.
    pub(super) line: usize,
    /// What is wrong, and the remedy.
    pub(super) problem: &'static str,
}

/// Reads all lines of a file.
///
/// # Errors
/// The first line that C tor would not take either, or would cut off.
pub(super) fn parse(text: &str) -> Result<Vec<Raw>, BadLine> {
    // C tor drops every carriage return as it reads a file.
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
        let bad = |problem| BadLine { line, problem };
        let raw = cursor.line(line).map_err(bad)?;
        if raw.key.contains('\0') || raw.value.contains('\0') {
            return Err(bad("there is a zero byte in it: remove it"));
        }
        if raw.key.is_empty() {
            return Err(bad("the option has no name: write NAME VALUE"));
        }
        lines.push(raw);
    }
}

/// A place in the text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// What is still to be read. The cursor only stops beside ASCII characters.
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The byte at the cursor.
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes on while `wanted` holds.
    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.byte().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    /// Goes to the end of the line, before its line break.
    fn skip_comment(&mut self) {
        self.skip_while(|byte| byte != b'\n');
    }

    /// Goes over white space and comments.
    fn skip_to_key(&mut self) {
        self.skip_while(is_space);
        while self.byte() == Some(b'#') {
            self.skip_comment();
            self.skip_while(is_space);
        }
    }

    /// Reads key and value from the cursor on.
    fn line(&mut self, line: usize) -> Result<Raw, &'static str> {
        let start = self.at;
        while let Some(byte) = self.byte()
            && !is_space(byte)
            && byte != b'#'
            && !self.rest().starts_with("\\\n")
        {
            self.at += 1;
        }
        let key = self.text.get(start..self.at).unwrap_or_default();
        self.skip_while(|byte| byte == b' ' || byte == b'\t');
        let value = match self.rest().strip_prefix('"') {
            Some(quoted) => self.quoted(quoted)?,
            None => self.plain(),
        };
        let (mode, key) = match key.split_at_checked(1) {
            Some(("+", key)) => (Mode::Append, key),
            Some(("/", key)) => (Mode::Clear, key),
            _ => (Mode::Set, key),
        };
        Ok(Raw {
            key: key.to_owned(),
            value: match mode {
                Mode::Clear => String::new(),
                _ => value,
            },
            mode,
            line,
        })
    }

    /// Reads a value in quotes from behind the first one. There are no continuations in it.
    fn quoted(&mut self, quoted: &str) -> Result<String, &'static str> {
        let (bytes, rest) = quote::unquote(quoted).ok_or(
            "the quoted value cannot be read: close it with a \" on the same line and use only the \
             escapes \\\\ \\\" \\' \\n \\r \\t \\xHH and \\NNN in it",
        )?;
        self.at = self.text.len() - rest.len();
        self.skip_while(|byte| byte == b' ' || byte == b'\t');
        if !matches!(self.byte(), None | Some(b'#' | b'\n')) {
            return Err(
                "something follows the quoted value: put all of it into the quotes, or remove them",
            );
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads a value without quotes, over all lines that it goes on for.
    ///
    /// A comment ends it, unless a continuation came before: then only the comment is left out,
    /// with its line break.
    fn plain(&mut self) -> String {
        let start = self.at;
        let mut continued = false;
        while let Some(byte) = self.byte() {
            match byte {
                b'\n' => break,
                b'#' if !continued => break,
                b'#' => {
                    self.skip_comment();
                    self.skip_break();
                }
                b'\\' if self.rest().starts_with("\\\n") => {
                    continued = true;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        let written = self.text.get(start..self.at).unwrap_or_default();
        // White space goes first: a file that ends within a continuation keeps its backslash.
        let written = written.trim_end_matches(|c: char| c.is_ascii() && is_space(c as u8));
        match continued {
            true => join(written),
            false => written.to_owned(),
        }
    }

    /// Goes over one line break, if it is there.
    fn skip_break(&mut self) {
        if self.byte() == Some(b'\n') {
            self.at += 1;
        }
    }
}

/// Takes comments and continuations out of a value.
fn join(written: &str) -> String {
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

/// C tor's white space.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c')
}
