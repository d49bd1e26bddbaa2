//! A minimal client of tor's control port (control-spec), over the Unix socket in a node's folder.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How long a running `tor` may take to answer a command.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// An authenticated connection to a control port.
#[derive(Debug)]
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
    /// The received part of an incomplete line.
    partial: Vec<u8>,
    /// Events received while waiting for an answer.
    events: VecDeque<String>,
}

impl Control {
    /// Connects to the `tor` in `folder` and authenticates without a password: the folder is private.
    pub(crate) fn connect(folder: &Path) -> Result<Self> {
        let socket = folder.join("control");
        let stream = UnixStream::connect(&socket)
            .with_context(|| format!("no control socket at {}", socket.display()))?;
        let mut control = Self {
            stream: BufReader::new(stream),
            partial: Vec::new(),
            events: VecDeque::new(),
        };
        control.command("AUTHENTICATE")?;
        Ok(control)
    }

    /// Sends a command and returns the lines of its answer, without status codes. The lines of a data block are joined with
    /// newlines.
    ///
    /// # Errors
    /// When tor refuses the command, does not answer in time, or closes the connection.
    pub(crate) fn command(&mut self, command: &str) -> Result<Vec<String>> {
        self.stream
            .get_mut()
            .write_all(format!("{command}\r\n").as_bytes())?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        let mut answer = Vec::new();
        loop {
            let name = command.split_whitespace().next().unwrap_or_default();
            let line = self
                .line(deadline)?
                .ok_or_else(|| anyhow!("no answer to {name}"))?;
            let (status, kind, mut text) = split(&line)?;
            if kind == '+' {
                text.push('\n');
                text.push_str(&self.data_block(deadline)?);
            }
            if status.starts_with('6') {
                self.events.push_back(text);
                continue;
            }
            if !status.starts_with('2') {
                bail!("{name} was refused: {status} {text}");
            }
            answer.push(text);
            if kind == ' ' {
                return Ok(answer);
            }
        }
    }

    /// Returns the value of one `GETINFO` key, or `None` if tor does not have it (yet).
    pub(crate) fn info(&mut self, key: &str) -> Option<String> {
        let answer = self.command(&format!("GETINFO {key}")).ok()?;
        let value = answer.first()?.strip_prefix(key)?.strip_prefix('=')?;
        Some(value.trim_start_matches('\n').to_owned())
    }

    /// Whether tor has enough directory information to build circuits.
    pub(crate) fn has_directory(&mut self) -> bool {
        self.info("status/enough-dir-info").as_deref() == Some("1")
    }

    /// Returns the next event requested with `SETEVENTS`, or `None` if none comes within `limit`.
    pub(crate) fn event(&mut self, limit: Duration) -> Result<Option<String>> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        let Some(line) = self.line(Instant::now() + limit)? else {
            return Ok(None);
        };
        let (status, kind, mut text) = split(&line)?;
        if kind == '+' {
            text.push('\n');
            text.push_str(&self.data_block(Instant::now() + ANSWER_LIMIT)?);
        }
        if !status.starts_with('6') {
            bail!("unexpected answer: {line}");
        }
        Ok(Some(text))
    }

    /// Reads the lines of a data block, up to the lone full stop that ends it.
    fn data_block(&mut self, deadline: Instant) -> Result<String> {
        let mut block = String::new();
        loop {
            let line = self
                .line(deadline)?
                .ok_or_else(|| anyhow!("tor's answer is incomplete"))?;
            if line == "." {
                return Ok(block);
            }
            // A full stop at the start of a line is doubled on the wire.
            block.push_str(line.strip_prefix('.').unwrap_or(&line));
            block.push('\n');
        }
    }

    /// Reads one line, without its line end; returns `None` at the deadline.
    fn line(&mut self, deadline: Instant) -> Result<Option<String>> {
        loop {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            self.stream.get_ref().set_read_timeout(Some(left))?;
            match self.stream.read_until(b'\n', &mut self.partial) {
                Ok(0) => bail!("tor closed its control port"),
                Ok(_) if self.partial.ends_with(b"\n") => {
                    let line =
                        String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
                    return Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()));
                }
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("cannot read from tor's control port"),
            }
        }
    }
}

/// Splits a line into its status code, the character after it (` `, `-` or `+`), and the text.
fn split(line: &str) -> Result<(String, char, String)> {
    let status = line
        .get(..3)
        .filter(|s| s.bytes().all(|b| b.is_ascii_digit()));
    let kind = line.as_bytes().get(3).copied().map(char::from);
    match (status, kind) {
        (Some(status), Some(kind @ (' ' | '-' | '+'))) => {
            Ok((status.to_owned(), kind, line[4..].to_owned()))
        }
        _ => bail!("not a control port line: {line:?}"),
    }
}
