//! The chosen backend, and that all backends give the same bytes.

use std::any::TypeId;

use crate::backend::Cipher;
use crate::fastest::Fastest;
use crate::{Backend, backend};

#[test]
fn the_faster_backend_serves() {
    let named = match backend() {
        #[cfg(feature = "aes-gcm")]
        Backend::AesGcm => TypeId::of::<<crate::aes_gcm::RustCrypto as Cipher>::Gcm>(),
        #[cfg(feature = "aws-lc-rs")]
        Backend::AwsLcRs => TypeId::of::<<crate::aws_lc_rs::AwsLc as Cipher>::Gcm>(),
        #[allow(unreachable_patterns, reason = "reached with one of the features only")]
        other => panic!("{other:?} was not compiled in"),
    };
    assert_eq!(named, TypeId::of::<<Fastest as Cipher>::Gcm>());
    assert_eq!(backend() == Backend::AwsLcRs, cfg!(feature = "aws-lc-rs"));
}

#[cfg(all(feature = "aes-gcm", feature = "aws-lc-rs"))]
mod both {
    use proptest::prelude::*;

    use crate::aes_gcm::RustCrypto;
    use crate::aws_lc_rs::AwsLc;
    use crate::ciphertext::Suite;
    use crate::fastest::Fastest;
    use crate::tests::mix::{plan, run};
    use crate::tests::support::{seal_with, suite_key};

    /// Pseudorandom-looking bytes.
    fn bytes(len: usize, seed: u8) -> Vec<u8> {
        let numbers = (0..len).map(|at| at.wrapping_mul(0x9e37_79b9).rotate_left(7).to_le_bytes()[1]);
        numbers.map(|byte| byte ^ seed).collect()
    }

    #[test]
    fn they_give_the_same_bytes() {
        for len in (0..=300_usize).chain([4096, 70_000]) {
            let seed = len.to_le_bytes()[0];
            let key = bytes(32, seed).try_into().unwrap();
            let nonce = bytes(24, !seed).try_into().unwrap();
            let (aad, plaintext) = (bytes(len % 200, 1), bytes(len, 2));
            let (rust, aws) = (suite_key::<RustCrypto>(key), suite_key::<AwsLc>(key));
            let fastest = suite_key::<Fastest>(key);
            for suite in Suite::ALL {
                let sealed = seal_with(&rust, suite, nonce, &aad, &plaintext);
                assert_eq!(seal_with(&aws, suite, nonce, &aad, &plaintext), sealed, "{len}");
                assert_eq!(
                    seal_with(&fastest, suite, nonce, &aad, &plaintext),
                    sealed,
                    "{len}"
                );
                assert_eq!(*rust.open(None, suite, &aad, &sealed).unwrap(), plaintext);
                assert_eq!(*aws.open(None, suite, &aad, &sealed).unwrap(), plaintext);
                assert_eq!(*fastest.open(None, suite, &aad, &sealed).unwrap(), plaintext);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn each_opens_what_the_other_sealed(plan in plan()) {
            run::<RustCrypto, AwsLc>(&plan);
            run::<AwsLc, RustCrypto>(&plan);
        }

        #[test]
        fn together_they_open_what_each_sealed(plan in plan()) {
            run::<RustCrypto, Fastest>(&plan);
            run::<Fastest, AwsLc>(&plan);
        }
    }
}
