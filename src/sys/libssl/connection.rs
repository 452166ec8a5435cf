//! A connection of OpenSSL whose reads and writes go through memory lent for the time of a call.
//!
//! Lent memory is on the lending thread's stack, and only that thread finds it ([`LENT`]). Another thread that calls the
//! connection meanwhile, or any call outside a lending, has nothing to read; its output is kept until the next lending.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{Bio, LibSsl, Ssl, library};

/// Why an operation gives no (more) result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It needs more input.
    WantRead,
    /// The peer's close_notify was received.
    Closed,
    /// Anything else: this thread's error queue has the reason, until it is emptied or OpenSSL is called again.
    Failed,
}

// Results of SSL_get_error().
const SSL_ERROR_WANT_READ: c_int = 2;
const SSL_ERROR_WANT_WRITE: c_int = 3;
const SSL_ERROR_ZERO_RETURN: c_int = 6;

const BIO_CTRL_FLUSH: c_int = 11;
const BIO_FLAGS_READ: c_int = 1;
const BIO_FLAGS_WRITE: c_int = 2;
const BIO_FLAGS_SHOULD_RETRY: c_int = 8;

/// The state of a connection between calls. The BIO and the [`Connection`] hold it.
struct Rest {
    /// The [`Connection`] exists and fetches the output.
    open: AtomicBool,
    /// There is kept output.
    any: AtomicBool,
    /// Output from outside a lending: a program may call the methods of the `SSLObject` itself.
    kept: Mutex<Vec<u8>>,
}

/// A connection that has input to read and a place for output, for the time of a call.
pub struct Lent<'a> {
    connection: &'a Connection,
    input: Cell<*const u8>,
    len: Cell<usize>,
    output: *mut Vec<u8>,
    /// This thread's [`LENT`], found once: each access by name is a call.
    place: *const Cell<*const Lent<'static>>,
    /// The outer lending of this thread: calls of different connections may be nested, by Python code in between.
    before: *const Lent<'static>,
}

thread_local! {
    /// The innermost lending of this thread. Alive as long as it is in this cell: [`Lent::drop`] removes it.
    static LENT: Cell<*const Lent<'static>> = const { Cell::new(ptr::null()) };
}

impl Drop for Lent<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this thread's own, which has no destructor and lasts as long as the thread; a `Lent` has a raw pointer and stays there.
        unsafe { (*self.place).set(self.before) };
    }
}

/// A connection that was taken over.
pub struct Connection {
    library: &'static LibSsl,
    ssl: *mut Ssl,
    /// Compared only.
    bio: *mut Bio,
    rest: Arc<Rest>,
}

impl Connection {
    /// Takes over the I/O of a connection.
    ///
    /// # Safety
    /// `ssl` is a connection of this library and outlives the result; calls on it that OpenSSL does not allow at once are kept
    /// apart by the caller.
    pub unsafe fn new(library: &'static LibSsl, ssl: *mut Ssl) -> Option<Self> {
        let rest = Arc::new(Rest {
            open: AtomicBool::new(true),
            any: AtomicBool::new(false),
            kept: Mutex::default(),
        });
        // SAFETY: promised; the connection takes over the one reference to the BIO, for both directions, and the BIO one to
        // `rest`, until `destroy`.
        unsafe {
            let bio = (library.functions.BIO_new)(library.method);
            if bio.is_null() {
                return None;
            }
            (library.functions.BIO_set_data)(bio, Arc::into_raw(rest.clone()).cast_mut().cast());
            (library.functions.BIO_set_init)(bio, 1);
            (library.functions.SSL_set_bio)(ssl, bio, bio);
            Some(Self { library, ssl, bio, rest })
        }
    }

    /// Lends input and output for the time of `call`, in which this thread may drive the connection by others too (`_ssl`). The
    /// thread's error queue is empty when `call` begins.
    #[inline]
    pub fn lend<R>(&self, input: &mut &[u8], output: &mut Vec<u8>, call: impl FnOnce(&Lent<'_>) -> R) -> R {
        self.library.forget_errors();
        self.lend_as_it_is(input, output, call)
    }

    /// The same, without touching the error queue: it has the reason of a call that just failed, or no call follows
    /// whose failure it would report.
    #[inline]
    pub fn lend_as_it_is<R>(
        &self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        call: impl FnOnce(&Lent<'_>) -> R,
    ) -> R {
        if self.rest.any.load(Ordering::Acquire) {
            let mut kept = self.rest.kept.lock();
            output.append(&mut kept);
            self.rest.any.store(false, Ordering::Relaxed);
        }
        let place = LENT.with(ptr::from_ref);
        let lent = Lent {
            connection: self,
            input: Cell::new(input.as_ptr()),
            len: Cell::new(input.len()),
            output,
            place,
            // SAFETY: this thread's own, see `Lent::drop`.
            before: unsafe { (*place).get() },
        };
        // SAFETY: as above.
        unsafe { (*place).set((&raw const lent).cast()) };
        let result = call(&lent);
        *input = &input[input.len() - lent.len.get()..];
        result
    }
}

impl Drop for Connection {
    /// The connection may live on, with its `SSLObject`: it then finds nothing to read and cannot write.
    fn drop(&mut self) {
        self.rest.open.store(false, Ordering::Release);
        *self.rest.kept.lock() = Vec::new();
    }
}

/// The calls. Each except [`write`](Lent::write) must begin with an empty error queue. All leave it empty, except that [`Trouble::Failed`]
/// leaves its reason there. After a success the queue is not read, as in `ssl`.
impl Lent<'_> {
    /// Decrypts.
    pub fn read(&self, plaintext: &mut [u8]) -> Result<usize, Trouble> {
        let mut count = 0;
        let (start, len) = (plaintext.as_mut_ptr().cast(), plaintext.len());
        // SAFETY: the connection is alive; pointer and length describe `plaintext`.
        let result = unsafe {
            (self.connection.library.functions.SSL_read_ex)(self.connection.ssl, start, len, &mut count)
        };
        self.outcome(result, result == 1).map(|()| count)
    }

    /// Encrypts all of `plaintext`, or nothing. The error queue may have any content: between handshakes a write hardly ever fails, and
    /// checking the queue before each one would cost a hundredth of it.
    #[inline]
    pub fn write(&self, plaintext: &[u8]) -> Result<usize, Trouble> {
        if self.in_handshake() {
            self.forget_errors();
            return self.try_write(plaintext);
        }
        match self.attempt_to_write(plaintext) {
            (1, count) => Ok(count),
            (result, _) => self.write_again(plaintext, result),
        }
    }

    /// After a failed write that began with old errors of other code in the queue.
    #[cold]
    fn write_again(&self, plaintext: &[u8], result: c_int) -> Result<usize, Trouble> {
        if self.in_handshake() {
            // An error that ended the connection: it comes once, and its reason is in the queue.
            return self.outcome(result, false).map(|()| 0);
        }
        // Old errors of other code would be mistaken for this call's. A refused write is repeated with the same data and refused again.
        self.forget_errors();
        self.try_write(plaintext)
    }

    fn try_write(&self, plaintext: &[u8]) -> Result<usize, Trouble> {
        let (result, count) = self.attempt_to_write(plaintext);
        self.outcome(result, result == 1).map(|()| count)
    }

    /// OpenSSL's result, and how much was taken.
    #[inline]
    fn attempt_to_write(&self, plaintext: &[u8]) -> (c_int, usize) {
        let mut count = 0;
        let (start, len) = (plaintext.as_ptr().cast(), plaintext.len());
        // SAFETY: the connection is alive; pointer and length describe `plaintext`.
        let result = unsafe {
            (self.connection.library.functions.SSL_write_ex)(self.connection.ssl, start, len, &mut count)
        };
        (result, count)
    }

    /// Sends close_notify.
    pub fn shutdown(&self) -> Result<(), Trouble> {
        // SAFETY: the connection is alive.
        let result = unsafe { (self.connection.library.functions.SSL_shutdown)(self.connection.ssl) };
        self.outcome(result, result >= 0)
    }

    /// Whether there is nothing to decrypt: neither lent nor held back by the connection itself.
    pub fn is_drained(&self) -> bool {
        let connection = self.connection;
        // SAFETY: the connection is alive.
        self.len.get() == 0 && unsafe { (connection.library.functions.SSL_has_pending)(connection.ssl) } == 0
    }

    /// Whether it makes a handshake, or cannot go on after a fatal error, which OpenSSL takes for the same.
    pub fn in_handshake(&self) -> bool {
        // SAFETY: the connection is alive.
        unsafe { (self.connection.library.functions.SSL_in_init)(self.connection.ssl) != 0 }
    }

    /// Empties the error queue.
    pub fn forget_errors(&self) {
        self.connection.library.forget_errors();
    }

    fn outcome(&self, result: c_int, good: bool) -> Result<(), Trouble> {
        if good {
            return Ok(());
        }
        let trouble = self.trouble(result);
        if trouble != Trouble::Failed {
            // `_ssl` does not empty the queue before it reads it, so nothing may be left there.
            self.forget_errors();
        }
        Err(trouble)
    }

    #[cold]
    fn trouble(&self, result: c_int) -> Trouble {
        // SAFETY: the connection is alive, and the call that gave `result` was this thread's last to OpenSSL.
        match unsafe { (self.connection.library.functions.SSL_get_error)(self.connection.ssl, result) } {
            SSL_ERROR_WANT_READ | SSL_ERROR_WANT_WRITE => Trouble::WantRead,
            SSL_ERROR_ZERO_RETURN => Trouble::Closed,
            _ => Trouble::Failed,
        }
    }
}

/// What this thread has lent to the connection of `bio`, if it has.
///
/// # Safety
/// The result is used before the call of OpenSSL that asks ends.
unsafe fn lent_to<'a>(bio: *mut Bio) -> Option<&'a Lent<'static>> {
    // SAFETY: an entry is alive until its `lend` ends, which called OpenSSL.
    let lent = unsafe { LENT.get().as_ref()? };
    (lent.connection.bio == bio).then_some(lent)
}

/// OpenSSL wants input.
pub(super) unsafe extern "C" fn read_input(bio: *mut Bio, buffer: *mut c_char, len: c_int) -> c_int {
    let functions = &library().functions;
    // SAFETY: called by OpenSSL with a BIO of ours and memory for `len` bytes; what is lent is valid during the call.
    unsafe {
        (functions.BIO_clear_flags)(bio, BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
        match lent_to(bio) {
            Some(lent) if lent.len.get() > 0 => {
                let count = (len.max(0) as usize).min(lent.len.get());
                ptr::copy_nonoverlapping(lent.input.get(), buffer.cast(), count);
                lent.input.set(lent.input.get().add(count));
                lent.len.set(lent.len.get() - count);
                count as c_int
            }
            _ => {
                (functions.BIO_set_flags)(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
                -1
            }
        }
    }
}

/// OpenSSL has output.
pub(super) unsafe extern "C" fn write_output(bio: *mut Bio, data: *const c_char, len: c_int) -> c_int {
    let functions = &library().functions;
    // SAFETY: as above; `lend`, which was given the output mutably, leaves it alone until its call ends.
    unsafe {
        (functions.BIO_clear_flags)(bio, BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
        let data = std::slice::from_raw_parts(data.cast::<u8>(), len.max(0) as usize);
        if let Some(lent) = lent_to(bio) {
            (*lent.output).extend_from_slice(data);
            return len;
        }
        // SAFETY: set before the BIO was given away, and held until `destroy`.
        let rest = &*(functions.BIO_get_data)(bio).cast::<Rest>();
        let mut kept = rest.kept.lock();
        if !rest.open.load(Ordering::Acquire) {
            return -1;
        }
        kept.extend_from_slice(data);
        rest.any.store(true, Ordering::Release);
        len
    }
}

pub(super) unsafe extern "C" fn control(_: *mut Bio, command: c_int, _: c_long, _: *mut c_void) -> c_long {
    c_long::from(command == BIO_CTRL_FLUSH)
}

/// The BIO has no reference left.
pub(super) unsafe extern "C" fn destroy(bio: *mut Bio) -> c_int {
    let functions = &library().functions;
    // SAFETY: called by OpenSSL, once, with a BIO of ours; the reference is the one that `new` gave it, if it came so far.
    unsafe {
        let rest = (functions.BIO_get_data)(bio).cast::<Rest>();
        (functions.BIO_set_data)(bio, ptr::null_mut());
        if !rest.is_null() {
            drop(Arc::from_raw(rest));
        }
    }
    1
}
