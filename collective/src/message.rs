//! What a worker says of a gradient, and what the server answers, also as words for memory and messages.

use crate::Error;
use crate::tree::Node;

/// What a worker says of the gradient in its slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Push {
    /// Micro-batches of the whole batch.
    pub leaves: usize,
    /// The subtree sums, in the order in which they lie in the slot.
    pub nodes: Vec<Node>,
    /// Loss of each micro-batch, from the left.
    pub losses: Vec<f64>,
    /// Rightly classified records of each micro-batch.
    pub hits: Vec<u32>,
}

/// What the server tells a worker, together with the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Compute the gradient of this step at these weights.
    Compute(u64),
    /// All gradients of this step are there: update your share of the weights. The answer says nothing but that it is done.
    Update(u64),
    /// There is nothing more to do.
    Stop,
}

/// The bit of an order's word that tells an update from a gradient: there are fewer steps.
const UPDATE: u64 = 1 << 63;

impl Order {
    /// As one word.
    pub(crate) fn word(self) -> u64 {
        match self {
            Order::Compute(step) => step,
            Order::Update(step) => step | UPDATE,
            Order::Stop => u64::MAX,
        }
    }

    /// The order of a word.
    pub(crate) fn of(word: u64) -> Order {
        match word {
            u64::MAX => Order::Stop,
            _ if word & UPDATE != 0 => Order::Update(word & !UPDATE),
            _ => Order::Compute(word),
        }
    }
}

impl Push {
    /// The most words that a push of so many nodes and leaves takes.
    pub(crate) fn words_max(nodes: usize, leaves: usize) -> usize {
        (2 + nodes + 2 * leaves).max(2 + REASON_WORDS)
    }

    /// Number of subtree sums that the words tell of, before all of them are there.
    pub fn nodes_of(first_word: u64) -> usize {
        (first_word >> 32) as usize
    }

    /// Number of words, by the first one.
    pub fn words_of(first_word: u64) -> usize {
        2 + Push::nodes_of(first_word) + 2 * (first_word as u32 as usize)
    }

    /// Becomes one that says nothing.
    pub fn clear(&mut self) {
        self.leaves = 0;
        self.nodes.clear();
        self.losses.clear();
        self.hits.clear();
    }

    /// Writes it as words: both counts, all leaves, nodes, losses, hits.
    pub(crate) fn to_words(&self, words: &mut Vec<u64>) {
        words.clear();
        words.push((self.nodes.len() as u64) << 32 | self.losses.len() as u64);
        words.push(self.leaves as u64);
        words.extend(self.nodes.iter().map(|node| u64::from(node.level) << 32 | node.index as u64));
        words.extend(self.losses.iter().map(|loss| loss.to_bits()));
        words.extend(self.hits.iter().map(|&hits| u64::from(hits)));
    }

    /// Becomes what the words say.
    pub(crate) fn set(&mut self, mut words: impl Iterator<Item = u64>) {
        let counts = words.next().unwrap_or(0);
        let (nodes, leaves) = (Push::nodes_of(counts), counts as u32 as usize);
        self.leaves = words.next().unwrap_or(0) as usize;
        let node = |word: u64| Node { level: (word >> 32) as u32, index: word as u32 as usize };
        self.nodes.clear();
        self.nodes.extend(words.by_ref().take(nodes).map(node));
        self.losses.clear();
        self.losses.extend(words.by_ref().take(leaves).map(f64::from_bits));
        self.hits.clear();
        self.hits.extend(words.take(leaves).map(|hits| hits as u32));
    }
}

/// The first word of a push that tells of a failure; its text follows, its length first.
const FAILURE: u64 = u64::MAX;
/// The longest text of a failure, in words.
const REASON_WORDS: usize = 125;

/// A failure in place of a push.
pub fn failure_to_words(reason: &str, words: &mut Vec<u64>) {
    let reason = &reason.as_bytes()[..reason.len().min(8 * REASON_WORDS)];
    let word = |chunk: &[u8]| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(bytes)
    };
    words.clear();
    words.extend([FAILURE, reason.len() as u64]);
    words.extend(reason.chunks(8).map(word));
}

/// The failure that words tell of, if they do.
///
/// # Errors
/// That failure.
pub fn failure_of(mut words: impl Iterator<Item = u64>) -> Result<(), Error> {
    if words.next() != Some(FAILURE) {
        return Ok(());
    }
    let length = words.next().unwrap_or(0) as usize;
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take(length).collect();
    Err(Error::Failed { reason: String::from_utf8_lossy(&bytes).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_say_what_was_pushed(
            nodes in prop::collection::vec((0u32..40, 0usize..1 << 32), 0..9),
            leaves in prop::collection::vec((-1e9f64..1e9, any::<u32>()), 0..9),
        ) {
            let nodes: Vec<Node> = nodes.into_iter().map(|(level, index)| Node { level, index }).collect();
            let (losses, hits) = leaves.into_iter().unzip();
            let push = Push { leaves: 9, nodes, losses, hits };
            let (mut words, mut read) = (Vec::new(), Push { hits: vec![7; 3], ..Push::default() });
            push.to_words(&mut words);
            prop_assert_eq!(words.len(), Push::words_of(words[0]));
            prop_assert!(words.len() <= Push::words_max(push.nodes.len(), push.losses.len()));
            read.set(words.into_iter().chain([99, 99]));
            prop_assert_eq!(read, push);
        }
    }

    #[test]
    fn an_order_is_a_word() {
        let last = UPDATE - 2;
        for order in
            [Order::Compute(0), Order::Compute(last), Order::Update(0), Order::Update(last), Order::Stop]
        {
            assert_eq!(Order::of(order.word()), order);
        }
    }

    #[test]
    fn a_failure_s_text_comes_back() {
        for reason in ["", "rank 2: no", "rank 2: größer als acht Byte"] {
            let mut words = Vec::new();
            failure_to_words(reason, &mut words);
            assert!(words.len() <= Push::words_max(0, 0));
            words.resize(Push::words_max(0, 0), 7);
            assert_eq!(failure_of(words.into_iter()).unwrap_err().to_string(), reason);
        }
        assert_eq!(failure_of([1 << 32, 0].into_iter()), Ok(()));
    }
}
