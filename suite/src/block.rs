//! Single AES-256 blocks, for subkeys, message keys and commitments.

use super::bytes::Block;

#[cfg(all(
    any(feature = "aes-gcm", feature = "ring"),
    any(target_arch = "x86_64", not(feature = "aws-lc-rs"))
))]
pub(super) use rust_crypto::Aes256;

/// On other processors than x86-64, crate `aes` uses AES instructions only if it was compiled with special flags.
#[cfg(not(all(
    any(feature = "aes-gcm", feature = "ring"),
    any(target_arch = "x86_64", not(feature = "aws-lc-rs"))
)))]
pub(super) use aws_lc::Aes256;

/// An expanded AES-256 key that only encrypts.
pub(super) trait BlockKey: Send + Sync + 'static {
    /// Expands a key, given as its two halves.
    fn new(key: &[Block; 2]) -> Self;

    /// Encrypts blocks in place, each independently. The processor may work on several blocks of one call in parallel.
    fn encrypt(&self, blocks: &mut [Block]);
}

/// By crate `aes`.
#[cfg(any(feature = "aes-gcm", feature = "ring"))]
pub(super) mod rust_crypto {
    #![cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "AWS-LC's serves where both are compiled in")
    )]

    use aes::Aes256Enc;
    use aes::cipher::inout::InOutBuf;
    use aes::cipher::{BlockEncrypt, KeyInit};

    use super::{Block, BlockKey};
    use crate::memory::{DEEP, UNOPTIMISED, wiping_stack};

    /// An expanded AES-256 key, in a union of one kilobyte. A move copies the whole union, and its `Drop` wipes only the
    /// active variant, so keep it in `Wiped` memory.
    ///
    /// It only encrypts, so the decryption schedule is never computed.
    pub(crate) struct Aes256(Aes256Enc);

    impl BlockKey for Aes256 {
        #[inline(always)]
        fn new(key: &[Block; 2]) -> Self {
            Self(Aes256Enc::new(key.as_flattened().into()))
        }

        #[inline]
        fn encrypt(&self, blocks: &mut [Block]) {
            // Whole blocks leave no tail.
            let (blocks, _) = InOutBuf::from(blocks.as_flattened_mut()).into_chunks();
            if UNOPTIMISED {
                wiping_stack::<DEEP, _>(|| self.0.encrypt_blocks_inout(blocks));
            } else {
                // With optimisation, this few blocks leave no round keys on the stack.
                self.0.encrypt_blocks_inout(blocks);
            }
        }
    }
}

/// By AWS-LC.
#[cfg(feature = "aws-lc-rs")]
pub(super) mod aws_lc {
    #![cfg_attr(
        all(any(feature = "aes-gcm", feature = "ring"), target_arch = "x86_64"),
        allow(dead_code, reason = "crate `aes` serves where both are compiled in")
    )]

    use ::aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};

    use super::{Block, BlockKey};
    use crate::aws_lc_rs::expanded;

    /// An expanded AES-256 key. The crate moves it by value, so keep it in `Wiped` memory.
    pub(crate) struct Aes256(EncryptingKey);

    impl BlockKey for Aes256 {
        fn new(key: &[Block; 2]) -> Self {
            let key = UnboundCipherKey::new(&AES_256, key.as_flattened());
            // ECB of one block is AES of that block.
            Self(expanded(key.and_then(EncryptingKey::ecb)))
        }

        #[inline]
        fn encrypt(&self, blocks: &mut [Block]) {
            let encrypted = self.0.encrypt(blocks.as_flattened_mut());
            // Panics rather than go on with unencrypted blocks.
            encrypted.expect("ECB refuses nothing but what is not whole blocks");
        }
    }
}

#[cfg(all(test, any(feature = "aes-gcm", feature = "ring"), feature = "aws-lc-rs"))]
mod tests {
    use proptest::prelude::*;

    use super::{BlockKey, aws_lc, rust_crypto};

    #[test]
    fn both_libraries_encrypt_a_block_alike() {
        // FIPS 197, appendix C.3.
        let bytes = |from: u8| std::array::from_fn(|at| from + u8::try_from(at).unwrap());
        let key = [bytes(0), bytes(16)];
        let plain: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap() * 0x11);
        let encrypted = 0x8ea2_b7ca_5167_45bf_eafc_4990_4b49_6089_u128.to_be_bytes();
        let (mut rust, mut aws) = ([plain; 3], [plain; 3]);
        rust_crypto::Aes256::new(&key).encrypt(&mut rust);
        aws_lc::Aes256::new(&key).encrypt(&mut aws);
        assert_eq!(rust, [encrypted; 3]);
        assert_eq!(aws, [encrypted; 3]);
    }

    proptest! {
        #[test]
        fn under_any_key_both_encrypt_alike(key: [[u8; 16]; 2], blocks: [[u8; 16]; 3]) {
            let (mut rust, mut aws) = (blocks, blocks);
            rust_crypto::Aes256::new(&key).encrypt(&mut rust);
            aws_lc::Aes256::new(&key).encrypt(&mut aws);
            prop_assert_eq!(rust, aws);
        }
    }
}
