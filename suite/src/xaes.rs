//! XAES-256-GCM and its key commitment: derives a message key from a data key and a nonce.
//!
//! [`Xaes::derive`] makes everything that depends only on the first half of the nonce, so that a caller that seals
//! many messages under one first half derives once. The second half is the IV of AES-256-GCM and enters the
//! commitment's last blocks.

use zeroize::ZeroizeOnDrop;

use super::backend::Backend;
use super::block::{Aes256, BlockKey};
use super::bytes::{Block, HalfNonce};
use super::gcm::GcmKey;
use crate::memory::{DEEP, Wiped, wiping_stack};

/// Derives message keys from a data key, as in [C2SP XAES-256-GCM](https://c2sp.org/XAES-256-GCM).
pub(super) struct Xaes(Box<Wiped<Expanded>>);

/// A data key, expanded.
struct Expanded {
    block: Aes256,
    /// CMAC's first subkey (NIST SP 800-38B), for messages of whole blocks.
    k1: Block,
}

impl Xaes {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        wiping_stack::<DEEP, _>(|| {
            let (left, right) = key.split_at(16);
            let mut halves = [Block::default(); 2];
            halves[0].copy_from_slice(left);
            halves[1].copy_from_slice(right);
            let block = Aes256::new(&halves);
            let mut zero = [Block::default()];
            block.encrypt(&mut zero);
            let k1 = double(&zero[0]);
            Self(Box::new(Wiped::new(Expanded { block, k1 })))
        })
    }

    /// Derives the message key and the start of its commitments, in three AES blocks.
    ///
    /// Call it in [`wiping_stack`].
    #[inline(always)]
    pub(super) fn derive(&self, backend: Backend, first_half: &HalfNonce) -> Wiped<MessageKey> {
        let [left, right, chain] = self.derive_blocks(first_half);
        let last = |counter| xor(&xor(&chain, &self.0.k1), counter);
        Wiped::new(MessageKey {
            first_half: *first_half,
            last: [last(&COUNTERS[0]), last(&COUNTERS[1])],
            mask: HALF,
            gcm: GcmKey::new(backend, &[left, right]),
        })
    }

    /// Derives the two halves of the message key, and CMAC's state after the commitment's first block.
    #[inline]
    pub(super) fn derive_blocks(&self, first_half: &HalfNonce) -> [Block; 3] {
        let mut blocks = [
            xor(&block(*b"\x00\x01X\x00", first_half), &self.0.k1),
            xor(&block(*b"\x00\x02X\x00", first_half), &self.0.k1),
            block(*b"XCMT", first_half),
        ];
        self.0.block.encrypt(&mut blocks);
        blocks
    }

    /// Computes the commitment to the data key and the whole nonce, in two AES blocks: two CMACs that share their first
    /// block. A separate function: when inlined, its blocks were written in other pieces than they were read in, which
    /// cost 20 ns.
    #[inline(never)]
    pub(super) fn commit(&self, key: &MessageKey, second_half: &PaddedHalf) -> [Block; 2] {
        let mut blocks = key.last;
        for block in &mut blocks {
            for (byte, (of_nonce, mask)) in block.iter_mut().zip(second_half.iter().zip(&key.mask)) {
                *byte ^= of_nonce & mask;
            }
        }
        self.0.block.encrypt(&mut blocks);
        blocks
    }
}

impl ZeroizeOnDrop for Xaes {}

/// Everything that depends only on the first half of a nonce: the key of all messages that share it. Immutable. It exists
/// only in [`Wiped`] memory.
pub(super) struct MessageKey {
    pub(super) first_half: HalfNonce,
    /// The last blocks of both CMACs over "XCMT" ‖ nonce ‖ counter, without the second half.
    last: [Block; 2],
    /// Always [`HALF`]. A field, so that the compiler does not know its value and combines whole blocks.
    mask: Block,
    pub(super) gcm: GcmKey,
}

/// A half nonce, and four ignored bytes. It is read as one block: reading a block that was written in other pieces stalls
/// the processor, for as long as an AES block takes.
pub(super) type PaddedHalf = Block;

/// Returns the half of a padded half.
#[inline(always)]
pub(super) fn half(padded: &PaddedHalf) -> &HalfNonce {
    padded.first_chunk().expect("a block is longer than half a nonce")
}

/// The ends of the last blocks of both CMACs, as whole blocks: reading a block that was put together from
/// pieces stalls the processor.
const COUNTERS: [Block; 2] = [
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2],
];

/// Masks the bytes of a padded half that count.
const HALF: Block = [
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
];

fn block(prefix: [u8; 4], half: &HalfNonce) -> Block {
    let mut block = Block::default();
    block[..4].copy_from_slice(&prefix);
    block[4..].copy_from_slice(half);
    block
}

#[inline(always)]
fn xor(left: &Block, right: &Block) -> Block {
    let mut xored = *left;
    for (byte, other) in xored.iter_mut().zip(right) {
        *byte ^= other;
    }
    xored
}

/// Doubles in CMAC's field, without a branch on the secret.
pub(super) fn double(block: &Block) -> Block {
    let block = u128::from_be_bytes(*block);
    ((block << 1) ^ (0x87 * (block >> 127))).to_be_bytes()
}
