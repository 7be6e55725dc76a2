//! Measures which cipher library is the fastest on this processor, for `Backend::fastest_first` in `suite/src/backend.rs`;
//! then compares `aes-gcm` 0.10 with 0.11 and `aes` 0.8 with 0.9, at typical field sizes.
//!
//! Every key is expanded once, outside the timed region, as in encx. A figure is the minimum of many rounds, because
//! noise only adds.

use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 200;
const CALLS: u32 = 5_000;
const AAD: [u8; 64] = [0x5a; 64];
const KEY: [u8; 32] = [7; 32];

fn main() {
    println!("{}\n", processor());
    libraries();
    println!(
        "{:<36} {:>10} {:>10} {:>8}",
        "nanoseconds a call", "old", "new", "new/old"
    );
    for len in [16, 64, 256, 1_024, 16_384] {
        let (old, new) = (gcm_010(len), gcm_011(len));
        row(&format!("aes-gcm 0.10.3, 0.11.1: {len} B"), old, new);
    }
    for blocks in [1, 2, 3] {
        let (old, new) = (aes_08(blocks), aes_09(blocks));
        row(&format!("aes 0.8.4, 0.9.4: {blocks} block(s)"), old, new);
    }
    row("aes-gcm: key setup", setup_010(), setup_011());
    row(
        "aes-gcm: the same, encrypting only",
        setup_enc_010(),
        setup_enc_011(),
    );
}

/// Says what `Processor::of_this_machine` looks at.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        format!(
            "x86-64: avx512 {}, vaes {}, avx2 {}",
            has!("avx512f") && has!("avx512bw") && has!("avx512vl"),
            has!("vaes") && has!("vpclmulqdq"),
            has!("avx2")
        )
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH.to_owned()
}

/// A library's name, and the nanoseconds of one call that seals so many bytes.
type Library = (&'static str, fn(usize) -> f64);

fn libraries() {
    let lengths = [64, 1 << 10, 16 << 10, 1 << 20];
    println!(
        "{:<24} {:>10} {:>10} {:>10} {:>10}",
        "nanoseconds to seal", "64 B", "1 KiB", "16 KiB", "1 MiB"
    );
    let libraries: [Library; 5] = [
        ("aws-lc-rs 1.19", aws_lc_rs),
        ("ring 0.17.14", ring),
        ("graviola 0.4.4", graviola),
        ("aes-gcm 0.11.1", gcm_011),
        ("aes-gcm 0.10.3", gcm_010),
    ];
    for (name, seal) in libraries {
        let [a, b, c, d] = lengths.map(seal);
        println!("{name:<24} {a:>10.1} {b:>10.1} {c:>10.1} {d:>10.1}");
    }
    println!();
}

fn aws_lc_rs(len: usize) -> f64 {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("32 bytes"));
    let (mut field, mut tag) = (vec![0; len], [0; 16]);
    least_nanos(len, |call| {
        let nonce = Nonce::assume_unique_for_key(nonce(call));
        key.seal_in_place_scatter(nonce, Aad::from(black_box(&AAD)), &mut field, &[], &mut tag)
            .expect("short enough");
        black_box(&tag);
    })
}

fn ring(len: usize) -> f64 {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("32 bytes"));
    let mut field = vec![0; len];
    least_nanos(len, |call| {
        let nonce = Nonce::assume_unique_for_key(nonce(call));
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(black_box(&AAD)), &mut field);
        black_box(tag.expect("short enough").as_ref());
    })
}

fn graviola(len: usize) -> f64 {
    let key = graviola::aead::AesGcm::new(&KEY);
    let (mut field, mut tag) = (vec![0; len], [0; 16]);
    least_nanos(len, |call| {
        key.encrypt(&nonce(call), black_box(&AAD), &mut field, &mut tag);
        black_box(&tag);
    })
}

fn row(name: &str, old: f64, new: f64) {
    println!("{name:<36} {old:>10.1} {new:>10.1} {:>8.2}", new / old);
}

#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures the machine's time"
)]
fn least_nanos(len: usize, mut call: impl FnMut(u32)) -> f64 {
    // About as long a round for each length.
    let calls = (CALLS * 64 / u32::try_from(len.max(64)).unwrap_or(u32::MAX)).clamp(5, CALLS);
    (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            (0..calls).for_each(&mut call);
            begin.elapsed().as_nanos() as f64 / f64::from(calls)
        })
        .fold(f64::INFINITY, f64::min)
}

fn nonce(call: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&call.to_be_bytes());
    nonce
}

fn gcm_010(len: usize) -> f64 {
    use aead_05::{AeadInPlace, KeyInit};
    let cipher = aes_gcm_010::Aes256Gcm::new(&KEY.into());
    let mut field = vec![0; len];
    least_nanos(len, |call| {
        let tag = cipher.encrypt_in_place_detached(&nonce(call).into(), black_box(&AAD), &mut field);
        black_box(tag.expect("short enough"));
    })
}

fn gcm_011(len: usize) -> f64 {
    use aead_06::{AeadInOut, KeyInit};
    let cipher = aes_gcm_011::Aes256Gcm::new(&KEY.into());
    let mut field = vec![0; len];
    least_nanos(len, |call| {
        let tag =
            cipher.encrypt_inout_detached(&nonce(call).into(), black_box(&AAD), field.as_mut_slice().into());
        black_box(tag.expect("short enough"));
    })
}

fn setup_010() -> f64 {
    use aead_05::KeyInit;
    least_nanos(16, |_| {
        black_box(aes_gcm_010::Aes256Gcm::new(&black_box(KEY).into()));
    })
}

fn setup_011() -> f64 {
    use aead_06::KeyInit;
    least_nanos(16, |_| {
        black_box(aes_gcm_011::Aes256Gcm::new(&black_box(KEY).into()));
    })
}

fn setup_enc_010() -> f64 {
    use aead_05::KeyInit;
    use aead_05::consts::U12;
    least_nanos(16, |_| {
        let cipher = aes_gcm_010::AesGcm::<aes_08::Aes256Enc, U12>::new(&black_box(KEY).into());
        black_box(cipher);
    })
}

fn setup_enc_011() -> f64 {
    use aead_06::KeyInit;
    use aead_06::consts::U12;
    least_nanos(16, |_| {
        let cipher = aes_gcm_011::AesGcm::<aes_09::Aes256Enc, U12>::new(&black_box(KEY).into());
        black_box(cipher);
    })
}

fn aes_08(blocks: usize) -> f64 {
    use aes_08::cipher::{BlockEncrypt, KeyInit};
    let cipher = aes_08::Aes256::new(&KEY.into());
    let mut data = vec![[0u8; 16].into(); blocks];
    if blocks == 1 {
        return least_nanos(16, |_| cipher.encrypt_block(black_box(&mut data[0])));
    }
    least_nanos(16, |_| cipher.encrypt_blocks(black_box(&mut data)))
}

fn aes_09(blocks: usize) -> f64 {
    use aes_09::cipher::{BlockCipherEncrypt, KeyInit};
    let cipher = aes_09::Aes256::new(&KEY.into());
    let mut data = vec![[0u8; 16].into(); blocks];
    if blocks == 1 {
        return least_nanos(16, |_| cipher.encrypt_block(black_box(&mut data[0])));
    }
    least_nanos(16, |_| cipher.encrypt_blocks(black_box(&mut data)))
}
