//! Writes lines to an output that may be non-blocking, or fail.
//!
//! Standard error is often shared: the shell, a service manager or another program may have made it
//! non-blocking. If it is a file, its disk may be full. A line is written whole or counted as missing.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// An output for whole lines.
#[derive(Debug)]
pub(super) struct LogOutput<W> {
    to: W,
    /// Lines that are missing since the last written one.
    missing: u64,
    /// Whether the last write ended within a line.
    is_cut: bool,
}

impl<W: Write + AsFd> LogOutput<W> {
    pub(super) fn new(to: W) -> Self {
        LogOutput {
            to,
            missing: 0,
            is_cut: false,
        }
    }

    /// Counts lines that were lost before they got here.
    pub(super) fn add_missing(&mut self, lines: u64) {
        self.missing += lines;
    }

    /// Writes a line, and then how many are missing before it. A non-blocking output is waited for,
    /// without a limit.
    pub(super) fn write_line(&mut self, line: &[u8]) {
        if (self.is_cut && !self.write_all(b"\n")) || !self.write_all(line) {
            self.missing += 1;
            return;
        }
        if self.missing > 0 {
            let report = format!(
                "{} log lines are missing: they could not be written in time\n",
                self.missing
            );
            if self.write_all(report.as_bytes()) {
                self.missing = 0;
            }
        }
    }

    /// Writes all of `bytes`; returns false on an error, which leaves `is_cut` set if a part was
    /// written.
    fn write_all(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(written) if written > 0 => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    self.is_cut = !bytes.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait_until_writable() {
                        return false;
                    }
                }
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    fn wait_until_writable(&self) -> bool {
        let mut pipe = [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)];
        matches!(
            poll(&mut pipe, PollTimeout::NONE),
            Ok(_) | Err(Errno::EINTR)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read as _;
    use std::os::fd::BorrowedFd;
    use std::rc::Rc;
    use std::thread;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn lines_through_a_non_blocking_pipe_are_whole_and_in_order() {
        const LINES: usize = 5000;
        let (mut reader, writer) = io::pipe().expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("non-blocking");
        // Of many lengths, and together longer than a pipe's buffer.
        let line = |number: usize| format!("{number} {}\n", "x".repeat(number % 997));
        let writing = thread::spawn(move || {
            let mut output = LogOutput::new(writer);
            for number in 0..LINES {
                output.write_line(line(number).as_bytes());
            }
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        writing.join().expect("written");
        let expected: String = (0..LINES).map(line).collect();
        assert!(text == expected, "lines are cut or missing");
    }

    /// A disk that takes `room` bytes and then is full, until `has_room` is set.
    struct FullDisk<'a> {
        written: &'a mut Vec<u8>,
        room: usize,
        has_room: Rc<Cell<bool>>,
    }

    impl Write for FullDisk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = match self.has_room.get() {
                true => bytes.len(),
                false => self
                    .room
                    .saturating_sub(self.written.len())
                    .min(bytes.len()),
            };
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for FullDisk<'_> {
        fn as_fd(&self) -> BorrowedFd<'_> {
            panic!("a disk never blocks")
        }
    }

    #[test]
    fn lines_that_do_not_fit_on_a_full_disk_are_counted_and_reported() {
        let mut written = Vec::new();
        let has_room = Rc::default();
        let mut output = LogOutput::new(FullDisk {
            written: &mut written,
            room: 8,
            has_room: Rc::clone(&has_room),
        });
        for line in ["first\n", "second\n", "third\n"] {
            output.write_line(line.as_bytes());
        }
        has_room.set(true);
        output.add_missing(3);
        output.write_line(b"fourth\n");
        output.write_line(b"fifth\n");
        drop(output);
        let text = String::from_utf8(written).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        let [first, part, fourth, report, fifth] = lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(
            [first, part, fourth, fifth],
            ["first", "se", "fourth", "fifth"]
        );
        assert!(report.starts_with("5 log lines are missing"), "{report}");
    }
}
