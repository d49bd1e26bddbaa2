//! Writing lines where writing may fail, or be done in part.
//!
//! Standard error is often shared: the shell, a service manager or another program may have made it
//! non-blocking, and a file may lie on a disk that is full. A line is written as a whole or counted.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Where lines go.
#[derive(Debug)]
pub(super) struct Output<W> {
    to: W,
    /// How many lines are missing since the last one that was written.
    missing: u64,
    /// Whether the last thing written was part of a line.
    cut: bool,
}

impl<W: Write + AsFd> Output<W> {
    pub(super) fn new(to: W) -> Self {
        Output {
            to,
            missing: 0,
            cut: false,
        }
    }

    /// Counts lines that were lost on their way here.
    pub(super) fn missed(&mut self, lines: u64) {
        self.missing += lines;
    }

    /// Writes a line, and then how many are missing before it. Waits for room as long as that takes.
    pub(super) fn line(&mut self, line: &[u8]) {
        if (self.cut && !self.write(b"\n")) || !self.write(line) {
            self.missing += 1;
            return;
        }
        if self.missing > 0 {
            let told = format!(
                "{} lines of the log are missing: they could not be written in time\n",
                self.missing
            );
            if self.write(told.as_bytes()) {
                self.missing = 0;
            }
        }
    }

    /// Writes all of `bytes`; false if that failed.
    fn write(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(written) if written > 0 => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    self.cut = !bytes.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait_for_room() {
                        return false;
                    }
                }
                // Whoever closed it does not want to know.
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    fn wait_for_room(&self) -> bool {
        let mut pipe = [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)];
        matches!(
            poll(&mut pipe, PollTimeout::NONE),
            Ok(_) | Err(Errno::EINTR)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::BorrowedFd;
    use std::thread;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn lines_through_a_non_blocking_pipe_are_whole_and_in_order() {
        const LINES: usize = 5000;
        let (mut reader, writer) = io::pipe().expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("non-blocking");
        // Of many lengths, and more in all than a pipe holds.
        let line = |number: usize| format!("{number} {}\n", "x".repeat(number % 997));
        let writing = thread::spawn(move || {
            let mut output = Output::new(writer);
            for number in 0..LINES {
                output.line(line(number).as_bytes());
            }
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        writing.join().expect("written");
        let expected: String = (0..LINES).map(line).collect();
        assert!(text == expected, "lines are cut or missing");
    }

    /// Takes so many bytes, then fails, until told to go on.
    struct Disk<'a>(&'a mut Vec<u8>, usize, std::rc::Rc<std::cell::Cell<bool>>);

    impl Write for Disk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = match self.2.get() {
                true => bytes.len(),
                false => self.1.saturating_sub(self.0.len()).min(bytes.len()),
            };
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for Disk<'_> {
        fn as_fd(&self) -> BorrowedFd<'_> {
            panic!("nothing to wait for")
        }
    }

    #[test]
    fn lines_that_a_full_disk_has_no_room_for_are_counted_and_told() {
        let mut kept = Vec::new();
        let room = std::rc::Rc::default();
        let mut output = Output::new(Disk(&mut kept, 8, std::rc::Rc::clone(&room)));
        for line in ["first\n", "second\n", "third\n"] {
            output.line(line.as_bytes());
        }
        room.set(true);
        output.missed(3);
        output.line(b"fourth\n");
        output.line(b"fifth\n");
        drop(output);
        let text = String::from_utf8(kept).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        let [first, part, fourth, told, fifth] = lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(
            [first, part, fourth, fifth],
            ["first", "se", "fourth", "fifth"]
        );
        assert!(told.starts_with("5 lines of the log are missing"), "{told}");
    }
}
