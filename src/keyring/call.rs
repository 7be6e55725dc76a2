//! Calls as futures that are done at once where the key is in memory.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use encx_core::aad::{Aad, AsAad};
use encx_core::ciphertext::Ciphertext;
use encx_suite::Epochs;

use super::core::{Core, Waiting, check_input};
use crate::cache::{DataCipher, Entry, Later};
use crate::error::{Boxed, Error};
use crate::plaintext::Plaintext;

/// One call: done at once if its key is in memory, otherwise when the key is there.
pub(crate) trait Call {
    type Output;

    /// Does it, if that needs no load; `None` if it does.
    fn try_now(&mut self) -> Option<Boxed<Self::Output>>;

    /// Has the key loaded, unless the input can never be used.
    fn load(&self) -> Waiting;

    /// Does it with the key that is being loaded.
    ///
    /// What is the caller's code, as `AsRef` is, runs before the key is taken, and so at each poll.
    fn finish(
        &mut self,
        waiting: &mut Waiting,
        later: &mut Later,
        context: &mut Context<'_>,
    ) -> Poll<Boxed<Self::Output>>;

    /// Leaves nothing behind that is no result, and says where a refused ciphertext is.
    fn failed(&mut self, _: &mut Error) {}
}

/// The future of a call that returns a `T`.
///
/// It is written by hand, and not `async`, so that awaiting a hot call is no more than calling a function and taking its
/// result. The future of an `async fn` that is awaited in several places is a function of its own, and to move a result out
/// of it in other pieces than it was put together from makes the processor wait: for 10 ns of 170.
///
/// Calls return it by name. An `impl Future` contains every type of its function, so the compiler would report an AAD of a
/// wrong type three times: at the argument, at the call and at the `.await`.
#[must_use = "futures do nothing unless they are awaited"]
pub struct TryFirst<T, C> {
    /// `None` when it is done.
    call: Option<C>,
    waiting: Option<Waiting>,
    output: PhantomData<fn() -> T>,
}

impl<T, C> TryFirst<T, C> {
    #[inline(always)]
    pub(crate) fn new(call: C) -> Self {
        Self {
            call: Some(call),
            waiting: None,
            output: PhantomData,
        }
    }
}

#[cold]
#[inline(never)]
fn poll_key<C: Call>(
    call: &mut C,
    waiting: &mut Option<Waiting>,
    context: &mut Context<'_>,
) -> Poll<Boxed<C::Output>> {
    let key = waiting.get_or_insert_with(|| call.load());
    let mut later = Later::default();
    let done = std::task::ready!(call.finish(key, &mut later, context));
    *waiting = None;
    drop(later);
    Poll::Ready(done)
}

/// Takes a key that is being loaded, for one use.
pub(super) fn poll_use<T>(
    waiting: &mut Waiting,
    context: &mut Context<'_>,
    call: impl FnOnce(&DataCipher) -> Boxed<T>,
) -> Poll<Boxed<T>> {
    let loaded = std::task::ready!(waiting.as_mut().poll(context));
    Poll::Ready(match loaded {
        Ok(key) => call(&key),
        Err(error) => Err(Error::boxed(error)),
    })
}

impl<T, C: Call<Output = T>> Future for TryFirst<T, C> {
    type Output = Result<T, Error>;

    /// # Panics
    ///
    /// If it is done already, as futures of `async fn` do.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let call = this
            .call
            .as_mut()
            .expect("a future is not polled after it is done");
        let done = match this.waiting {
            None => call.try_now(),
            Some(_) => None,
        };
        let done = match done {
            Some(done) => done,
            None => std::task::ready!(poll_key(call, &mut this.waiting, context)),
        };
        // An error is unboxed here and not in a function of its own: what that returned would be moved through memory, also
        // where there is none.
        let done = match done {
            Ok(done) => Ok(done),
            Err(error) => {
                let mut error = *error;
                call.failed(&mut error);
                Err(error)
            }
        };
        this.call = None;
        Poll::Ready(done)
    }
}

/// What is pinned is on the heap.
impl<T, C> Unpin for TryFirst<T, C> {}

/// Where the key of a call is found.
pub(crate) trait Place {
    fn core(&self) -> &Core;

    fn entry(&self) -> Arc<Entry>;

    /// Encrypts into an empty buffer, if that needs no load; `None` if it does.
    fn try_encrypt_into(&self, plaintext: &[u8], aad: &Aad, buffer: &mut Vec<u8>) -> Option<Boxed<()>>;

    /// Encrypts if that needs no load; `None` if it does.
    #[inline(always)]
    fn try_encrypt(&self, plaintext: &[u8], aad: &Aad) -> Option<Boxed<Ciphertext>> {
        let mut sealed = Vec::new();
        let done = self.try_encrypt_into(plaintext, aad, &mut sealed)?;
        Some(done.map(|()| Ciphertext::from_sealed(sealed)))
    }

    /// Decrypts if that needs no load; `None` if it does.
    fn try_decrypt(&self, ciphertext: &Ciphertext, aad: &Aad) -> Option<Boxed<Plaintext>>;
}

/// Encrypts one value.
pub struct Encrypt<W, P, A> {
    pub(crate) place: W,
    pub(crate) plaintext: P,
    pub(crate) aad: A,
}

impl<W: Place, P: AsRef<[u8]>, A: AsAad> Call for Encrypt<W, P, A> {
    type Output = Ciphertext;

    #[inline(always)]
    fn try_now(&mut self) -> Option<Boxed<Ciphertext>> {
        self.place.try_encrypt(self.plaintext.as_ref(), self.aad.as_aad())
    }

    fn load(&self) -> Waiting {
        let checked = check_input(self.plaintext.as_ref(), self.aad.as_aad());
        self.place.core().key_to_seal(self.place.entry(), checked)
    }

    fn finish(
        &mut self,
        waiting: &mut Waiting,
        _: &mut Later,
        context: &mut Context<'_>,
    ) -> Poll<Boxed<Ciphertext>> {
        let suite = self.place.core().suite;
        let (plaintext, aad) = (self.plaintext.as_ref(), self.aad.as_aad());
        poll_use(waiting, context, |key| {
            key.seal(&mut Epochs::new(None), suite, plaintext, aad)
        })
    }
}

/// Decrypts one value.
pub struct Decrypt<'a, W, A> {
    pub(crate) place: W,
    pub(crate) ciphertext: &'a Ciphertext,
    pub(crate) aad: A,
}

impl<W: Place, A: AsAad> Call for Decrypt<'_, W, A> {
    type Output = Plaintext;

    #[inline(always)]
    fn try_now(&mut self) -> Option<Boxed<Plaintext>> {
        self.place.try_decrypt(self.ciphertext, self.aad.as_aad())
    }

    fn load(&self) -> Waiting {
        let (header, aad) = (self.ciphertext.header(), self.aad.as_aad());
        self.place.core().key_to_open(self.place.entry(), header, aad)
    }

    fn finish(
        &mut self,
        waiting: &mut Waiting,
        later: &mut Later,
        context: &mut Context<'_>,
    ) -> Poll<Boxed<Plaintext>> {
        let (core, aad) = (self.place.core(), self.aad.as_aad());
        poll_use(waiting, context, |key| {
            core.open(key, None, self.ciphertext, aad, later)
        })
    }

    fn failed(&mut self, error: &mut Error) {
        let key = Some(self.ciphertext.key_id());
        self.place.core().note_refused(error, key, self.aad.as_aad());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::Waker;

    use super::*;

    struct AtOnce(Arc<()>);

    impl Call for AtOnce {
        type Output = usize;

        fn try_now(&mut self) -> Option<Boxed<usize>> {
            Some(Ok(Arc::strong_count(&self.0)))
        }

        fn load(&self) -> Waiting {
            unreachable!("it is done at once")
        }

        fn finish(&mut self, _: &mut Waiting, _: &mut Later, _: &mut Context<'_>) -> Poll<Boxed<usize>> {
            unreachable!("it is done at once")
        }
    }

    #[test]
    fn what_is_done_is_dropped_and_not_done_again() {
        let held = Arc::new(());
        let mut future = TryFirst::new(AtOnce(Arc::clone(&held)));
        let mut poll = || Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll(), Poll::Ready(Ok(2))));
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
    }
}
