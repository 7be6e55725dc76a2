//! XAES-256-GCM and its key commitment: what turns a data key and a nonce into a message key.
//!
//! Everything that depends on the first half of the nonce alone is made by [`Xaes::derive`], so that whoever
//! seals many messages under one first half derives once. The second half is the IV of AES-256-GCM
//! and enters the commitment's last blocks.

use zeroize::{ZeroizeOnDrop, Zeroizing, zeroize_bytes};

use super::backend::BlockKey;
use super::{Block, Commitment, HalfNonce};

/// Derives message keys from a data key, as in [C2SP XAES-256-GCM](https://c2sp.org/XAES-256-GCM).
pub(super) struct Xaes {
    /// On the heap: moving this copies no round keys.
    block: Box<BlockKey>,
    /// CMAC's first subkey (NIST SP 800-38B), for messages of whole blocks.
    k1: Zeroizing<Block>,
}

impl Xaes {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let (left, right) = key.split_at(16);
        let mut halves = Wiped([Block::default(); 2]);
        halves.0[0].copy_from_slice(left);
        halves.0[1].copy_from_slice(right);
        let block = Box::new(BlockKey::new(&halves.0));
        let mut zero = Zeroizing::new([Block::default()]);
        block.encrypt(zero.as_mut_slice());
        let k1 = Zeroizing::new(double(&zero[0]));
        Self { block, k1 }
    }

    /// Derives the message key, and with it the first block of the commitment, in three blocks of AES.
    pub(super) fn derive(&self, first_half: &HalfNonce) -> Derived {
        let mut blocks = Wiped([
            xor(&block(*b"\x00\x01X\x00", first_half), &self.k1),
            xor(&block(*b"\x00\x02X\x00", first_half), &self.k1),
            block(*b"XCMT", first_half),
        ]);
        self.block.encrypt(&mut blocks.0);
        let [left, right, chain] = &blocks.0;
        Derived {
            key: Wiped([*left, *right]),
            chain: Wiped([*chain]),
        }
    }

    /// Computes the commitment to the data key and the whole nonce, in two blocks of AES: two CMACs that
    /// share their first block.
    pub(super) fn commit(&self, derived: &Derived, second_half: &HalfNonce) -> Commitment {
        let last = |number: u8| {
            let mut last = Block::default();
            last[..12].copy_from_slice(second_half);
            last[12..].copy_from_slice(&[0, 1, 0, number]);
            xor(&xor(&last, &derived.chain.0[0]), &self.k1)
        };
        let mut blocks = [last(1), last(2)];
        self.block.encrypt(&mut blocks);
        let mut commitment = [0; 32];
        commitment.copy_from_slice(blocks.as_flattened());
        commitment
    }
}

impl ZeroizeOnDrop for Xaes {}

/// What depends on the first half of a nonce alone.
pub(super) struct Derived {
    /// The message key, in two halves.
    pub(super) key: Wiped<2>,
    /// CMAC's state after "XCMT" ‖ first half.
    chain: Wiped<1>,
}

/// Wipes its blocks when dropped, all at once. `Zeroizing` would write them byte by byte, and every message has
/// three.
pub(super) struct Wiped<const N: usize>(pub(super) [Block; N]);

impl<const N: usize> Drop for Wiped<N> {
    fn drop(&mut self) {
        zeroize_bytes(self.0.as_flattened_mut());
    }
}

impl<const N: usize> ZeroizeOnDrop for Wiped<N> {}

fn block(prefix: [u8; 4], half: &HalfNonce) -> Block {
    let mut block = Block::default();
    block[..4].copy_from_slice(&prefix);
    block[4..].copy_from_slice(half);
    block
}

fn xor(left: &Block, right: &Block) -> Block {
    (u128::from_ne_bytes(*left) ^ u128::from_ne_bytes(*right)).to_ne_bytes()
}

/// Doubles in CMAC's field, without a branch on the secret.
pub(super) fn double(block: &Block) -> Block {
    let block = u128::from_be_bytes(*block);
    ((block << 1) ^ (0x87 * (block >> 127))).to_be_bytes()
}
