//! A window that slides over an input: what the readers see of it.

use std::io::{self, Read};

/// Large enough to make system calls and range reads rare, small enough to stay in L2.
const WINDOW_BYTES: usize = 256 << 10;

/// A frame or a value that claims to be longer is taken for damage; an honest one is some hundred bytes to some megabytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Unread bytes of `input`, contiguous.
///
/// The window grows only when it is full of bytes that really came, so a hostile length costs no memory.
pub(super) struct Window<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where in the file `start` is.
    position: u64,
}

impl<R: Read> Window<R> {
    pub fn new(input: R) -> Self {
        Window { input, buffer: vec![0; WINDOW_BYTES], start: 0, end: 0, position: 0 }
    }

    /// The same bytes, the first of which is at `position` of its file.
    pub fn at(self, position: u64) -> Self {
        Window { position, ..self }
    }

    /// Where in the file the first visible byte is.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What is visible now.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Moves past the first `count` visible bytes and returns them.
    pub fn take(&mut self, count: usize) -> &[u8] {
        let start = self.start;
        self.start += count;
        self.position += count as u64;
        &self.buffer[start..self.start]
    }

    /// Makes more bytes visible; false at the end of the input.
    pub fn fill(&mut self) -> io::Result<bool> {
        if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes `count` bytes visible; false when the input ends before.
    pub fn demand(&mut self, count: usize) -> io::Result<bool> {
        while self.end - self.start < count {
            if !self.fill()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_all_bytes_in_order_whatever_their_chunks() {
        let input: Vec<u8> = (0..3 * WINDOW_BYTES).map(|i| (i % 251) as u8).collect();
        let mut window = Window::new(input.as_slice());
        let mut seen = Vec::new();
        for length in [1, 100_000, WINDOW_BYTES + 7, 3].into_iter().cycle() {
            if !window.demand(length).unwrap() {
                break;
            }
            seen.extend_from_slice(window.take(length));
        }
        seen.extend_from_slice(window.bytes());
        assert_eq!(seen, input);
    }

    #[test]
    fn a_length_beyond_the_input_costs_no_memory() {
        let mut window = Window::new(&[1u8, 2, 3][..]);
        assert!(!window.demand(usize::MAX).unwrap());
        assert_eq!(window.buffer.len(), WINDOW_BYTES);
    }
}
