//! XAES-256-GCM and its key commitment: what turns a data key and a nonce into a message key.
//!
//! Everything that depends on the first half of the nonce alone is made by [`Xaes::derive`] and kept in a
//! [`MessageKey`], so that whoever seals many messages under one first half derives once. The second half is
//! the IV of AES-256-GCM and enters the commitment's last blocks.

use zeroize::{ZeroizeOnDrop, Zeroizing, zeroize_bytes};

use super::backend::{BlockKey, GcmKey, Refused};
use super::{Block, Commitment, HalfNonce, Tag};

/// Derives message keys from a data key, as in [C2SP XAES-256-GCM](https://c2sp.org/XAES-256-GCM).
pub(super) struct Xaes {
    block: BlockKey,
    /// CMAC's first subkey (NIST SP 800-38B), for messages of whole blocks.
    k1: Zeroizing<Block>,
}

impl Xaes {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let block = BlockKey::new(key);
        let mut zero = Zeroizing::new([Block::default()]);
        block.encrypt(zero.as_mut_slice());
        let k1 = Zeroizing::new(double(&zero[0]));
        Self { block, k1 }
    }

    /// Derives the message key, and with it the first block of the commitment, in three blocks of AES.
    ///
    /// Inlined, here and in the backend: a message key has a kilobyte, and each return would move it.
    #[inline(always)]
    pub(super) fn derive(&self, first_half: &HalfNonce) -> MessageKey {
        let mut blocks = Wiped([
            xor(&block(*b"\x00\x01X\x00", first_half), &self.k1),
            xor(&block(*b"\x00\x02X\x00", first_half), &self.k1),
            block(*b"XCMT", first_half),
        ]);
        self.block.encrypt(&mut blocks.0);
        let [left, right, chain] = blocks.0;
        let key = Wiped([left, right]);
        MessageKey {
            gcm: GcmKey::new(&key.0),
            chain: Wiped([chain]),
            #[cfg(test)]
            key,
        }
    }

    /// Computes the commitment to the data key and the whole nonce, in two blocks of AES: two CMACs that
    /// share their first block.
    pub(super) fn commit(&self, key: &MessageKey, second_half: &HalfNonce) -> Commitment {
        let last = |number: u8| {
            let mut last = Block::default();
            last[..12].copy_from_slice(second_half);
            last[12..].copy_from_slice(&[0, 1, 0, number]);
            xor(&xor(&last, &key.chain.0[0]), &self.k1)
        };
        let mut blocks = [last(1), last(2)];
        self.block.encrypt(&mut blocks);
        let mut commitment = [0; 32];
        commitment.copy_from_slice(blocks.as_flattened());
        commitment
    }
}

impl ZeroizeOnDrop for Xaes {}

/// Seals and opens under one first half of a nonce.
pub(super) struct MessageKey {
    gcm: GcmKey,
    /// CMAC's state after "XCMT" ‖ first half.
    chain: Wiped<1>,
    /// What the vectors show.
    #[cfg(test)]
    pub(super) key: Wiped<2>,
}

impl MessageKey {
    /// Encrypts in place and returns the tag.
    pub(super) fn seal(
        &self,
        second_half: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<Tag, Refused> {
        self.gcm.seal(second_half, aad, buffer)
    }

    /// Verifies the tag, then decrypts in place.
    pub(super) fn open(
        &self,
        second_half: &HalfNonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), Refused> {
        self.gcm.open(second_half, aad, buffer, tag)
    }
}

/// Wipes its blocks when dropped, all at once. `Zeroizing` would write them byte by byte, and every message has six.
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
