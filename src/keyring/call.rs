//! Futures of calls that are ready at once if the key is cached.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use encx_core::aad::Aad;
use encx_core::ciphertext::Ciphertext;
use encx_suite::Epochs;

use super::core::{Core, Waiting, check_input};
use crate::cache::{DataCipher, Entry, Later};
use crate::error::{Boxed, Error};
use crate::plaintext::Plaintext;

/// A call: done at once if its key is cached, otherwise when the key is loaded.
pub(crate) trait Call {
    type Output;

    /// Does the call, if that needs no load; otherwise `None`.
    fn try_now(&mut self) -> Option<Boxed<Self::Output>>;

    /// Starts to load the key, unless the input can never be used.
    fn load(&self) -> Waiting;

    /// Does the call with the loaded key.
    ///
    /// The caller's code, such as `AsRef`, runs before the key is taken, and so at each poll.
    fn finish(
        &mut self,
        waiting: &mut Waiting,
        later: &mut Later,
        context: &mut Context<'_>,
    ) -> Poll<Boxed<Self::Output>>;

    /// Cleans up after an error, and adds the location of a refused ciphertext to it.
    fn failed(&mut self, _: &mut Error) {}
}

/// The future of a call that returns a `T`.
///
/// It is written by hand rather than `async`, so that awaiting a hot call only calls a function and takes its result. The
/// future of an `async fn` that is awaited in several places is a separate function, and moving a result out of it in
/// other pieces than it was written in stalls the processor, for 10 ns of 170.
///
/// Calls return it by name. An `impl Future` contains every type of its function, so the compiler would report a wrong
/// type of AAD three times: at the argument, at the call and at the `.await`.
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

/// Takes a loaded key, for one use.
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
    /// If it is already done, like futures of `async fn`.
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
        // The error is unboxed here rather than in a separate function, whose result would be moved through memory even
        // without an error.
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

/// Pinned data is boxed.
impl<T, C> Unpin for TryFirst<T, C> {}

/// Locates the key of a call.
pub(crate) trait Place {
    fn core(&self) -> &Core;

    fn entry(&self) -> Arc<Entry>;

    /// Encrypts into an empty buffer, if that needs no load; otherwise `None`.
    fn try_encrypt_into(&self, plaintext: &[u8], aad: &mut Aad, buffer: &mut Vec<u8>) -> Option<Boxed<()>>;

    /// Encrypts if that needs no load; otherwise `None`.
    #[inline(always)]
    fn try_encrypt(&self, plaintext: &[u8], aad: &mut Aad) -> Option<Boxed<Ciphertext>> {
        let mut sealed = Vec::new();
        let done = self.try_encrypt_into(plaintext, aad, &mut sealed)?;
        Some(done.map(|()| Ciphertext::from_sealed(sealed)))
    }

    /// Decrypts if that needs no load; otherwise `None`.
    fn try_decrypt(&self, ciphertext: &Ciphertext, aad: &mut Aad) -> Option<Boxed<Plaintext>>;
}

/// Encrypts one value.
pub struct Encrypt<W, P> {
    pub(crate) place: W,
    pub(crate) plaintext: P,
    pub(crate) aad: Aad,
}

impl<W: Place, P: AsRef<[u8]>> Call for Encrypt<W, P> {
    type Output = Ciphertext;

    #[inline(always)]
    fn try_now(&mut self) -> Option<Boxed<Ciphertext>> {
        self.place.try_encrypt(self.plaintext.as_ref(), &mut self.aad)
    }

    fn load(&self) -> Waiting {
        let checked = check_input(self.plaintext.as_ref(), &self.aad);
        self.place.core().key_to_seal(self.place.entry(), checked)
    }

    fn finish(
        &mut self,
        waiting: &mut Waiting,
        _: &mut Later,
        context: &mut Context<'_>,
    ) -> Poll<Boxed<Ciphertext>> {
        let suite = self.place.core().suite;
        let (plaintext, aad) = (self.plaintext.as_ref(), &mut self.aad);
        poll_use(waiting, context, |key| {
            key.seal(&mut Epochs::new(None), suite, plaintext, aad)
        })
    }
}

/// Decrypts one value.
pub struct Decrypt<'a, W> {
    pub(crate) place: W,
    pub(crate) ciphertext: &'a Ciphertext,
    pub(crate) aad: Aad,
}

impl<W: Place> Call for Decrypt<'_, W> {
    type Output = Plaintext;

    #[inline(always)]
    fn try_now(&mut self) -> Option<Boxed<Plaintext>> {
        self.place.try_decrypt(self.ciphertext, &mut self.aad)
    }

    fn load(&self) -> Waiting {
        let header = self.ciphertext.header();
        self.place
            .core()
            .key_to_open(self.place.entry(), header, &self.aad)
    }

    fn finish(
        &mut self,
        waiting: &mut Waiting,
        later: &mut Later,
        context: &mut Context<'_>,
    ) -> Poll<Boxed<Plaintext>> {
        let (core, aad) = (self.place.core(), &mut self.aad);
        poll_use(waiting, context, |key| {
            core.open(key, None, self.ciphertext, aad, later)
        })
    }

    fn failed(&mut self, error: &mut Error) {
        let key = Some(self.ciphertext.key_id());
        self.place.core().note_refused(error, key, &self.aad);
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
