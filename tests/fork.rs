//! Forks, and shows that parent, child and grandchild draw different nonces.
//!
//! A program of its own, without libtest: a process should fork while it has one thread.
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
    let tests: [(&str, fn()); 3] = [
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
    ];
    for (name, test) in tests {
        // Each in a process of its own: in the second nothing may have been drawn yet.
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
    use std::collections::HashSet;
    use std::io::{PipeWriter, Read, Write, pipe};
    use std::process::exit;

    use encx::DataKey;
    use encx::suite::KcXaes256Gcm;
    use fork::{Fork, fork, waitpid};
    use nix::unistd::alarm;

    const DRAWS: usize = 64;
    const NONCE_LEN: usize = 24;
    /// The kernel ends a process that takes longer, whatever it waits for.
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

    fn cipher() -> KcXaes256Gcm {
        KcXaes256Gcm::new(&DataKey::generate().unwrap())
    }

    fn draw(cipher: &KcXaes256Gcm, out: &mut dyn Write, draws: usize) {
        for _ in 0..draws {
            let sealed = cipher.seal(b"", b"").unwrap();
            out.write_all(&sealed[..NONCE_LEN]).unwrap();
        }
    }

    /// Returns the nonces that some processes wrote: few enough for the pipe's own buffer.
    fn collect(processes: impl FnOnce(&PipeWriter)) -> Vec<u8> {
        let (mut read, write) = pipe().unwrap();
        processes(&write);
        drop(write);
        let mut nonces = Vec::new();
        read.read_to_end(&mut nonces).unwrap();
        nonces
    }

    fn assert_all_differ(nonces: &[u8], expected: usize) {
        assert_eq!(nonces.len(), expected * NONCE_LEN);
        // The first half alone chooses the message key: it must differ by itself.
        for half in [0..12, 12..24, 0..24] {
            let distinct: HashSet<_> = nonces
                .chunks_exact(NONCE_LEN)
                .map(|nonce| &nonce[half.clone()])
                .collect();
            assert_eq!(distinct.len(), expected, "nonces {half:?} came twice");
        }
    }

    /// Runs something in a child and waits for it to succeed.
    pub(super) fn in_child(run: impl FnOnce()) {
        alarm::set(DEADLINE_SECONDS);
        match fork().unwrap() {
            Fork::Child => {
                alarm::set(DEADLINE_SECONDS);
                let run = std::panic::AssertUnwindSafe(run);
                // The parent's stack continues below: it must not run here, whether this fails or not.
                exit(i32::from(std::panic::catch_unwind(run).is_err()));
            }
            Fork::Parent(child) => {
                assert_eq!(waitpid(child).unwrap(), 0, "the child failed");
            }
        }
    }
}
