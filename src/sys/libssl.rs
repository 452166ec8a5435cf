//! The OpenSSL that Python's `_ssl` module has loaded, called directly.
//!
//! No library is loaded or linked here: the functions are looked up in what that module brought into the process, so
//! that they act on the same connections. Where OpenSSL is linked into it statically there is nothing to be found.

use std::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// `RTLD_NOLOAD` of Linux: only what is loaded already.
const RTLD_NOLOAD: c_int = libc::RTLD_NOLOAD;

pub type Ssl = c_void;
type Bio = c_void;
type BioMethod = c_void;

/// Why an operation gives no (more) result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It needs more input.
    WantRead,
    /// close_notify was received, or a fatal alert: the error queue tells.
    Closed,
    /// Anything else: the error queue tells.
    Failed,
}

// Values of SSL_want() and bits of SSL_get_shutdown().
const SSL_NOTHING: c_int = 1;
const SSL_RECEIVED_SHUTDOWN: c_int = 2;
/// OpenSSL 1.1.1, as OpenSSL_version_num() writes it.
const OLDEST: c_ulong = 0x1010_1000;
const BIO_TYPE_SOURCE_SINK: c_int = 0x400;
const BIO_CTRL_FLUSH: c_int = 11;
const BIO_FLAGS_READ: c_int = 1;
const BIO_FLAGS_WRITE: c_int = 2;
const BIO_FLAGS_SHOULD_RETRY: c_int = 8;

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Addresses of the functions.
        #[allow(non_snake_case)]
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn find(library: &Library) -> Option<Self> {
                Some(Self {
                    // SAFETY: the type is that of OpenSSL's function of this name, the same since 1.1.1.
                    $($name: unsafe { *library.get(concat!(stringify!($name), "\0").as_bytes()).ok()? },)*
                })
            }
        }
    };
}

functions! {
    SSL_read_ex: fn(*mut Ssl, *mut c_void, usize, *mut usize) -> c_int;
    SSL_write_ex: fn(*mut Ssl, *const c_void, usize, *mut usize) -> c_int;
    SSL_shutdown: fn(*mut Ssl) -> c_int;
    SSL_has_pending: fn(*const Ssl) -> c_int;
    SSL_want: fn(*const Ssl) -> c_int;
    SSL_get_shutdown: fn(*const Ssl) -> c_int;
    SSL_in_init: fn(*const Ssl) -> c_int;
    SSL_set_bio: fn(*mut Ssl, *mut Bio, *mut Bio);
    SSL_get_ex_data: fn(*const Ssl, c_int) -> *mut c_void;
    BIO_get_new_index: fn() -> c_int;
    BIO_meth_new: fn(c_int, *const c_char) -> *mut BioMethod;
    BIO_meth_set_write: fn(*mut BioMethod, unsafe extern "C" fn(*mut Bio, *const c_char, c_int) -> c_int) -> c_int;
    BIO_meth_set_read: fn(*mut BioMethod, unsafe extern "C" fn(*mut Bio, *mut c_char, c_int) -> c_int) -> c_int;
    BIO_meth_set_ctrl: fn(*mut BioMethod, unsafe extern "C" fn(*mut Bio, c_int, c_long, *mut c_void) -> c_long) -> c_int;
    BIO_new: fn(*const BioMethod) -> *mut Bio;
    BIO_set_data: fn(*mut Bio, *mut c_void);
    BIO_get_data: fn(*mut Bio) -> *mut c_void;
    BIO_set_init: fn(*mut Bio, c_int);
    BIO_set_flags: fn(*mut Bio, c_int);
    BIO_clear_flags: fn(*mut Bio, c_int);
    OpenSSL_version_num: fn() -> c_ulong;
}

/// What a connection reads from and writes to during a call; empty and null in between.
struct Lent {
    input: *const u8,
    len: usize,
    output: *mut Vec<u8>,
    /// What came out in between: a program may call the methods of the `SSLObject` itself. Leaves with the next call.
    kept: Vec<u8>,
}

/// The library, and the kind of BIO that connections are given.
pub struct LibSsl {
    functions: Functions,
    method: *mut BioMethod,
    _library: Library,
}

// SAFETY: function addresses, and a method table that nobody changes once it is made.
unsafe impl Send for LibSsl {}
// SAFETY: as above.
unsafe impl Sync for LibSsl {}

static LIBRARY: OnceLock<Option<LibSsl>> = OnceLock::new();

fn library() -> &'static LibSsl {
    LIBRARY.get().and_then(Option::as_ref).expect("a connection was made with it")
}

impl LibSsl {
    /// What the shared object at `path`, loaded already, has loaded with it. None where there is no such thing.
    pub fn behind(path: &Path) -> Option<&'static Self> {
        LIBRARY.get_or_init(|| Self::find(path)).as_ref()
    }

    fn find(path: &Path) -> Option<Self> {
        // SAFETY: nothing is loaded that is not there already, so no initialiser runs.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD) }.ok()?;
        let functions = Functions::find(&library)?;
        // SAFETY: plain calls; the method is never freed.
        let method = unsafe {
            if (functions.OpenSSL_version_num)() < OLDEST {
                return None;
            }
            let index = (functions.BIO_get_new_index)();
            let method = (functions.BIO_meth_new)(index | BIO_TYPE_SOURCE_SINK, c"tokioloop".as_ptr());
            if index == -1 || method.is_null() {
                return None;
            }
            (functions.BIO_meth_set_read)(method, read_input);
            (functions.BIO_meth_set_write)(method, write_output);
            (functions.BIO_meth_set_ctrl)(method, control);
            method
        };
        Some(Self { functions, method, _library: library })
    }

    /// What was attached to a connection as its application data.
    ///
    /// # Safety
    /// `ssl` is a live connection of this library.
    pub unsafe fn application_data(&self, ssl: *mut Ssl) -> *mut c_void {
        // SAFETY: promised; index 0 is the application data.
        unsafe { (self.functions.SSL_get_ex_data)(ssl, 0) }
    }
}

/// A connection whose reads and writes go through memory lent for the time of a call.
pub struct Connection {
    library: &'static LibSsl,
    ssl: *mut Ssl,
    bio: *mut Bio,
    lent: Box<Lent>,
}

impl Connection {
    /// Takes over the I/O of a connection.
    ///
    /// # Safety
    /// `ssl` is a connection of this library and outlives the result, which is used by one thread at a time.
    pub unsafe fn new(library: &'static LibSsl, ssl: *mut Ssl) -> Option<Self> {
        let mut lent =
            Box::new(Lent { input: ptr::null(), len: 0, output: ptr::null_mut(), kept: Vec::new() });
        // SAFETY: promised; the connection takes over the one reference to the BIO, for both directions. The box stays where
        // it is until `drop` takes its address out of the BIO.
        unsafe {
            let bio = (library.functions.BIO_new)(library.method);
            if bio.is_null() {
                return None;
            }
            (library.functions.BIO_set_data)(bio, (&raw mut *lent).cast());
            (library.functions.BIO_set_init)(bio, 1);
            (library.functions.SSL_set_bio)(ssl, bio, bio);
            Some(Self { library, ssl, bio, lent })
        }
    }

    /// Lends input and output for the time of `call`, in which the connection may be driven by others too (`_ssl`).
    pub fn lend<R>(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        call: impl FnOnce(&mut Self) -> R,
    ) -> R {
        if !self.lent.kept.is_empty() {
            output.append(&mut self.lent.kept);
        }
        (self.lent.input, self.lent.len, self.lent.output) = (input.as_ptr(), input.len(), output);
        let result = call(self);
        *input = &input[input.len() - self.lent.len..];
        (self.lent.input, self.lent.len, self.lent.output) = (ptr::null(), 0, ptr::null_mut());
        result
    }

    /// Decrypts. To be called inside [`lend`](Self::lend), like those below.
    pub fn read(&mut self, plaintext: &mut [u8]) -> Result<usize, Trouble> {
        let mut count = 0;
        // SAFETY: the connection is alive; pointer and length describe `plaintext`.
        let result = unsafe {
            (self.library.functions.SSL_read_ex)(
                self.ssl,
                plaintext.as_mut_ptr().cast(),
                plaintext.len(),
                &mut count,
            )
        };
        if result == 1 { Ok(count) } else { Err(self.trouble()) }
    }

    /// Encrypts all of `plaintext`, or nothing.
    pub fn write(&mut self, plaintext: &[u8]) -> Result<usize, Trouble> {
        let mut count = 0;
        // SAFETY: the connection is alive; pointer and length describe `plaintext`.
        let result = unsafe {
            (self.library.functions.SSL_write_ex)(
                self.ssl,
                plaintext.as_ptr().cast(),
                plaintext.len(),
                &mut count,
            )
        };
        if result == 1 { Ok(count) } else { Err(self.trouble()) }
    }

    /// Sends close_notify.
    pub fn shutdown(&mut self) -> Result<(), Trouble> {
        // SAFETY: the connection is alive.
        let result = unsafe { (self.library.functions.SSL_shutdown)(self.ssl) };
        if result >= 0 { Ok(()) } else { Err(self.trouble()) }
    }

    /// Whether there is nothing to decrypt: neither lent nor held back by the connection itself.
    pub fn is_drained(&self) -> bool {
        // SAFETY: the connection is alive.
        self.lent.len == 0 && unsafe { (self.library.functions.SSL_has_pending)(self.ssl) } == 0
    }

    /// Told from the connection's own state: the thread's error queue, which SSL_get_error() looks at, may hold what somebody
    /// else left there.
    fn trouble(&self) -> Trouble {
        let functions = &self.library.functions;
        // SAFETY: the connection is alive.
        unsafe {
            if (functions.SSL_want)(self.ssl) != SSL_NOTHING {
                Trouble::WantRead
            } else if (functions.SSL_get_shutdown)(self.ssl) & SSL_RECEIVED_SHUTDOWN != 0
                // A fatal alert counts as the end of what is received too, but leaves the connection unusable.
                && (functions.SSL_in_init)(self.ssl) == 0
            {
                Trouble::Closed
            } else {
                Trouble::Failed
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the connection, which owns the BIO, is alive still. It may live on: it then finds nothing to read, and cannot write.
        unsafe { (self.library.functions.BIO_set_data)(self.bio, ptr::null_mut()) };
    }
}

/// OpenSSL wants input.
unsafe extern "C" fn read_input(bio: *mut Bio, buffer: *mut c_char, len: c_int) -> c_int {
    let functions = &library().functions;
    // SAFETY: called by OpenSSL with a BIO of ours and memory for `len` bytes; what is lent is valid during the call.
    unsafe {
        (functions.BIO_clear_flags)(bio, BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
        let lent = (functions.BIO_get_data)(bio).cast::<Lent>();
        if lent.is_null() || (*lent).len == 0 {
            (functions.BIO_set_flags)(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
            return -1;
        }
        let count = (len.max(0) as usize).min((*lent).len);
        ptr::copy_nonoverlapping((*lent).input, buffer.cast(), count);
        (*lent).input = (*lent).input.add(count);
        (*lent).len -= count;
        count as c_int
    }
}

/// OpenSSL has output.
unsafe extern "C" fn write_output(bio: *mut Bio, data: *const c_char, len: c_int) -> c_int {
    let functions = &library().functions;
    // SAFETY: as above.
    unsafe {
        (functions.BIO_clear_flags)(bio, BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
        let lent = (functions.BIO_get_data)(bio).cast::<Lent>();
        if lent.is_null() {
            return -1;
        }
        let data = std::slice::from_raw_parts(data.cast::<u8>(), len.max(0) as usize);
        let output = if (*lent).output.is_null() { &raw mut (*lent).kept } else { (*lent).output };
        (*output).extend_from_slice(data);
        len
    }
}

unsafe extern "C" fn control(_: *mut Bio, command: c_int, _: c_long, _: *mut c_void) -> c_long {
    c_long::from(command == BIO_CTRL_FLUSH)
}
