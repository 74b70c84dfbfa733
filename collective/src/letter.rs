//! Words and floats in one message, and how long runs of floats are cut into messages.

use std::ops::Range;

/// The most floats that travel with words between nodes, and the floats of one message there: 60 KiB, with the words just below what Open MPI
/// sends over TCP without asking first. Twice as much took twice as long there.
const FAR: usize = 15 * 1024;
/// The floats of one message within a node, where the other side copies them by a call of the kernel.
const NEAR: usize = 64 * 1024;

/// How a gradient, or the weights, are cut into messages.
#[derive(Clone, Copy)]
pub struct Cut {
    floats: usize,
    is_near: bool,
}

impl Cut {
    /// Of so many floats, between two ranks of one node or of two.
    pub fn new(floats: usize, is_near: bool) -> Cut {
        Cut { floats, is_near }
    }

    /// How many go with words: all or none. Within a node a message costs less than the copies that would make two into one.
    pub fn with_words(self) -> usize {
        if !self.is_near && self.floats <= FAR { self.floats } else { 0 }
    }

    /// The messages of the floats from `first` on.
    pub fn pieces(self, first: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
        let most = if self.is_near { NEAR } else { FAR };
        let piece = move |index| first + most * index..self.floats.min(first + most * (index + 1));
        (0..(self.floats - first).div_ceil(most)).map(piece)
    }
}

/// A message's buffer: words, each as the bits of two floats, and behind them floats.
#[derive(Default)]
pub struct Letter(Box<[f32]>);

impl Letter {
    /// Room for so many words, and for so many floats.
    pub fn new(words: usize, floats: usize) -> Letter {
        Letter(vec![0.0; 2 * words + floats].into())
    }

    /// Becomes these words and floats; returns the message.
    pub fn write(&mut self, words: impl IntoIterator<Item = u64>, floats: &[f32]) -> &[f32] {
        let mut length = 0;
        for word in words {
            self.0[length] = f32::from_bits(word as u32);
            self.0[length + 1] = f32::from_bits((word >> 32) as u32);
            length += 2;
        }
        self.0[length..][..floats.len()].copy_from_slice(floats);
        &self.0[..length + floats.len()]
    }

    /// Where a message may be received.
    pub fn buffer(&mut self) -> &mut [f32] {
        &mut self.0
    }

    /// The words, and whatever else is there.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        self.0.chunks_exact(2).map(|pair| u64::from(pair[0].to_bits()) | u64::from(pair[1].to_bits()) << 32)
    }

    /// The floats behind so many words.
    pub fn floats(&self, words: usize) -> &[f32] {
        &self.0[2 * words..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_was_written() {
        // A signalling NaN's bits among them.
        let words = [u64::MAX, 0, 0x7fa0_0000_7f80_0001, 7];
        let (mut sent, mut received) = (Letter::new(4, 2), Letter::new(5, 3));
        let message = sent.write(words, &[1.0, 2.0]);
        received.buffer()[..message.len()].copy_from_slice(message);
        assert!(received.words().take(4).eq(words));
        assert_eq!(received.floats(4)[..2], [1.0, 2.0]);
    }

    #[test]
    fn pieces_cover_what_does_not_go_with_words() {
        for (floats, is_near) in [(0, false), (FAR, true), (FAR + 1, false), (5 * NEAR - 1, true)] {
            let cut = Cut::new(floats, is_near);
            for first in [0, cut.with_words()] {
                let covered: Vec<usize> = cut.pieces(first).flatten().collect();
                assert_eq!(covered, (first..floats).collect::<Vec<_>>());
                assert!(cut.pieces(first).all(|piece| piece.len() <= if is_near { NEAR } else { FAR }));
            }
        }
        assert_eq!(Cut::new(FAR, false).with_words(), FAR);
        assert_eq!(Cut::new(FAR + 1, false).with_words(), 0);
        assert_eq!(Cut::new(FAR, true).with_words(), 0);
    }
}
