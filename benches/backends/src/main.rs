//! Compares `aes-gcm` 0.10 with 0.11 and `aes` 0.8 with 0.9, at typical field sizes.
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

fn row(name: &str, old: f64, new: f64) {
    println!("{name:<36} {old:>10.1} {new:>10.1} {:>8.2}", new / old);
}

#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures the machine's time"
)]
fn least_nanos(mut call: impl FnMut(u32)) -> f64 {
    let calls = CALLS;
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
    least_nanos(|call| {
        let tag = cipher.encrypt_in_place_detached(&nonce(call).into(), black_box(&AAD), &mut field);
        black_box(tag.expect("short enough"));
    })
}

fn gcm_011(len: usize) -> f64 {
    use aead_06::{AeadInOut, KeyInit};
    let cipher = aes_gcm_011::Aes256Gcm::new(&KEY.into());
    let mut field = vec![0; len];
    least_nanos(|call| {
        let tag =
            cipher.encrypt_inout_detached(&nonce(call).into(), black_box(&AAD), field.as_mut_slice().into());
        black_box(tag.expect("short enough"));
    })
}

fn setup_010() -> f64 {
    use aead_05::KeyInit;
    least_nanos(|_| {
        black_box(aes_gcm_010::Aes256Gcm::new(&black_box(KEY).into()));
    })
}

fn setup_011() -> f64 {
    use aead_06::KeyInit;
    least_nanos(|_| {
        black_box(aes_gcm_011::Aes256Gcm::new(&black_box(KEY).into()));
    })
}

fn setup_enc_010() -> f64 {
    use aead_05::KeyInit;
    use aead_05::consts::U12;
    least_nanos(|_| {
        let cipher = aes_gcm_010::AesGcm::<aes_08::Aes256Enc, U12>::new(&black_box(KEY).into());
        black_box(cipher);
    })
}

fn setup_enc_011() -> f64 {
    use aead_06::KeyInit;
    use aead_06::consts::U12;
    least_nanos(|_| {
        let cipher = aes_gcm_011::AesGcm::<aes_09::Aes256Enc, U12>::new(&black_box(KEY).into());
        black_box(cipher);
    })
}

fn aes_08(blocks: usize) -> f64 {
    use aes_08::cipher::{BlockEncrypt, KeyInit};
    let cipher = aes_08::Aes256::new(&KEY.into());
    let mut data = vec![[0u8; 16].into(); blocks];
    if blocks == 1 {
        return least_nanos(|_| cipher.encrypt_block(black_box(&mut data[0])));
    }
    least_nanos(|_| cipher.encrypt_blocks(black_box(&mut data)))
}

fn aes_09(blocks: usize) -> f64 {
    use aes_09::cipher::{BlockCipherEncrypt, KeyInit};
    let cipher = aes_09::Aes256::new(&KEY.into());
    let mut data = vec![[0u8; 16].into(); blocks];
    if blocks == 1 {
        return least_nanos(|_| cipher.encrypt_block(black_box(&mut data[0])));
    }
    least_nanos(|_| cipher.encrypt_blocks(black_box(&mut data)))
}
