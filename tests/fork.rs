//! Forks, and checks that parent, child and grandchild draw different nonces.
//!
//! A program without libtest, because a process should fork while it has one thread.
#![allow(
    clippy::unwrap_used,
    reason = "a test, which clippy cannot tell without libtest"
)]

#[cfg(not(unix))]
fn main() {
    report(0);
}

#[cfg(unix)]
fn main() {
    let tests: [(&str, fn()); 4] = [
        (
            "a_child_forked_after_a_draw_draws_differently",
            unix::a_child_forked_after_a_draw_draws_differently,
        ),
        (
            "a_child_forked_before_any_draw_draws_differently",
            unix::a_child_forked_before_any_draw_draws_differently,
        ),
        (
            "two_children_of_one_parent_draw_differently",
            unix::two_children_of_one_parent_draw_differently,
        ),
        (
            "parent_and_child_share_a_keyring_and_no_epoch",
            unix::parent_and_child_share_a_keyring_and_no_epoch,
        ),
    ];
    for (name, test) in tests {
        // Each in its own process: in the second, nothing may have been drawn before.
        unix::in_child(test);
        #[allow(clippy::print_stdout, reason = "what libtest prints")]
        {
            println!("test {name} ... ok");
        }
    }
    report(tests.len());
}

#[allow(clippy::print_stdout, reason = "what libtest prints")]
fn report(passed: usize) {
    println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

#[cfg(unix)]
mod unix {
    use std::cell::RefCell;
    use std::collections::HashSet;
    use std::io::{PipeWriter, Read, Write, pipe};
    use std::process::exit;
    use std::sync::Arc;

    use encx::kms::DataKey;
    use encx::suite::Suite;
    use encx::{Ciphertext, Crypto, EncryptionContext, Field, Keyring};
    use encx_suite::{Epoch, Epochs, SuiteKey, SuiteOptions};
    use encx_testkit::{MemoryKeyStore, MemoryKms};
    use fork::{Fork, fork, waitpid};
    use nix::unistd::alarm;

    const DRAWS: usize = 64;
    const BATCH: usize = 20;
    const PLAINTEXT: &str = "123-45-6789";
    const AAD: Field = Field::new("users", "ssn");
    const HEADER_LEN: usize = 18;
    const NONCE_LEN: usize = 24;
    const PROCESS_LEN: usize = 4;
    /// The kernel kills a process that takes longer.
    const DEADLINE_SECONDS: u32 = 60;

    pub(super) fn a_child_forked_after_a_draw_draws_differently() {
        let cipher = cipher();
        draw(&cipher, &mut std::io::sink(), 1);
        let nonces = collect(|out| {
            in_child(|| {
                in_child(|| draw(&cipher, &mut &*out, DRAWS));
                draw(&cipher, &mut &*out, DRAWS);
            });
            draw(&cipher, &mut &*out, DRAWS);
        });
        assert_all_differ(&nonces, 3 * DRAWS);
    }

    pub(super) fn a_child_forked_before_any_draw_draws_differently() {
        let cipher = cipher();
        let nonces = collect(|out| {
            in_child(|| draw(&cipher, &mut &*out, DRAWS));
            draw(&cipher, &mut &*out, DRAWS);
        });
        assert_all_differ(&nonces, 2 * DRAWS);
    }

    pub(super) fn two_children_of_one_parent_draw_differently() {
        let cipher = cipher();
        draw(&cipher, &mut std::io::sink(), 1);
        let nonces = collect(|out| {
            in_child(|| draw(&cipher, &mut &*out, DRAWS));
            in_child(|| draw(&cipher, &mut &*out, DRAWS));
        });
        assert_all_differ(&nonces, 2 * DRAWS);
    }

    /// The child has a copy of the parent's epoch and must not continue it. Both decrypt what either encrypted, before
    /// the fork and after.
    pub(super) fn parent_and_child_share_a_keyring_and_no_epoch() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let keyring = runtime.block_on(async {
            let context = EncryptionContext::builder().pair("tenantId", "t-42").build();
            let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build();
            let keyring = crypto.await.unwrap().keyring(&context.unwrap()).await.unwrap();
            keyring.encrypt("makes the key", AAD.row(1)).await.unwrap();
            keyring
        });
        // An epoch has begun, and a message was decrypted under it.
        let before = encrypt(&keyring, 5);
        assert_decrypts(&keyring, &before);
        let sealed = collect(|out| {
            let write = |sealed: &[Ciphertext]| {
                for sealed in sealed {
                    let process = std::process::id().to_be_bytes();
                    (&mut &*out)
                        .write_all(&[&process[..], sealed.as_bytes()].concat())
                        .unwrap();
                }
            };
            write(&before);
            in_child(|| {
                assert_decrypts(&keyring, &before);
                in_child(|| write(&encrypt(&keyring, DRAWS)));
                write(&encrypt(&keyring, DRAWS));
                write(&in_a_batch(&keyring));
            });
            write(&encrypt(&keyring, DRAWS));
            write(&in_a_batch(&keyring));
        });
        const LEN: usize = PROCESS_LEN + 90 + PLAINTEXT.len();
        let records = sealed.chunks_exact(LEN);
        let of_all: Vec<_> = records
            .clone()
            .map(|record| Ciphertext::parse(&record[PROCESS_LEN..]).unwrap())
            .collect();
        assert_eq!(of_all.len(), 5 + 3 * DRAWS + 2 * BATCH);
        assert_decrypts(&keyring, &of_all);
        in_child(|| assert_decrypts(&keyring, &of_all));
        let nonces = records.flat_map(|record| {
            let nonce = &record[PROCESS_LEN + HEADER_LEN..][..NONCE_LEN];
            [&record[..PROCESS_LEN], nonce].concat()
        });
        assert_all_differ(&nonces.collect::<Vec<_>>(), of_all.len());
    }

    fn encrypt(keyring: &Keyring, messages: usize) -> Vec<Ciphertext> {
        let encrypt = |_| keyring.try_encrypt(PLAINTEXT, AAD.row(1)).unwrap();
        (0..messages).map(encrypt).collect()
    }

    fn in_a_batch(keyring: &Keyring) -> Vec<Ciphertext> {
        // The key is hot, so no call waits.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let batch = keyring.encrypt_many((0..BATCH).map(|_| (PLAINTEXT, AAD.row(1))));
        runtime.block_on(batch).into_iter().map(Result::unwrap).collect()
    }

    fn assert_decrypts(keyring: &Keyring, all: &[Ciphertext]) {
        // Three times: derived, noted, and found.
        for sealed in [all; 3].into_iter().flatten() {
            let opened = keyring.try_decrypt(sealed, AAD.row(1)).unwrap();
            assert_eq!(opened.as_bytes(), PLAINTEXT.as_bytes());
        }
    }

    /// A key as in `Crypto`: the second half of each nonce comes from a generator per thread.
    struct Cipher {
        key: SuiteKey,
        epoch: RefCell<Option<Arc<Epoch>>>,
    }

    impl Cipher {
        fn seal(&self) -> Vec<u8> {
            let mut sealed = Vec::new();
            let epoch = self.epoch.borrow().clone();
            let mut epochs = Epochs::new(epoch.as_ref());
            self.key
                .seal(&mut epochs, Suite::KcXaes256Gcm, b"", b"", &mut sealed)
                .unwrap();
            if let Some(begun) = epochs.begun() {
                self.epoch.replace(Some(begun));
            }
            sealed
        }
    }

    fn cipher() -> Cipher {
        Cipher {
            key: SuiteKey::new(&DataKey::generate().unwrap(), SuiteOptions::default()),
            epoch: RefCell::new(None),
        }
    }

    fn draw(cipher: &Cipher, out: &mut dyn Write, draws: usize) {
        for _ in 0..draws {
            let sealed = cipher.seal();
            let process = std::process::id().to_be_bytes();
            out.write_all(&[&process[..], &sealed[..NONCE_LEN]].concat())
                .unwrap();
        }
    }

    /// Returns the nonces that some processes wrote: few enough for the pipe's buffer.
    fn collect(processes: impl FnOnce(&PipeWriter)) -> Vec<u8> {
        let (mut read, write) = pipe().unwrap();
        processes(&write);
        drop(write);
        let mut nonces = Vec::new();
        read.read_to_end(&mut nonces).unwrap();
        nonces
    }

    fn assert_all_differ(records: &[u8], expected: usize) {
        assert_eq!(records.len(), expected * (PROCESS_LEN + NONCE_LEN));
        let records = records.chunks_exact(PROCESS_LEN + NONCE_LEN);
        let records: Vec<_> = records.map(|record| record.split_at(PROCESS_LEN)).collect();
        // The second half is random in every message.
        let second: HashSet<_> = records.iter().map(|(_, nonce)| &nonce[12..]).collect();
        assert_eq!(second.len(), expected, "second halves came twice");
        // An epoch shares the first half of its nonces, and belongs to one process.
        let first: HashSet<_> = records.iter().map(|(_, nonce)| &nonce[..12]).collect();
        let epochs: HashSet<_> = records.iter().map(|(of, nonce)| (of, &nonce[..12])).collect();
        assert_eq!(epochs.len(), first.len(), "two processes went on with one epoch");
        // Epochs are shared; otherwise the checks above test nothing.
        assert!(first.len() < expected / 2);
    }

    /// Runs a closure in a child and waits for it to succeed.
    pub(super) fn in_child(run: impl FnOnce()) {
        alarm::set(DEADLINE_SECONDS);
        match fork().unwrap() {
            Fork::Child => {
                alarm::set(DEADLINE_SECONDS);
                let run = std::panic::AssertUnwindSafe(run);
                // The parent's stack continues below: it must not run here, even if this fails.
                exit(i32::from(std::panic::catch_unwind(run).is_err()));
            }
            Fork::Parent(child) => {
                assert_eq!(waitpid(child).unwrap(), 0, "the child failed");
            }
        }
    }
}
