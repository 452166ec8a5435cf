//! The OpenSSL that Python's `_ssl` module calls, called directly.
//!
//! No library is loaded or linked here: the functions are looked up in the libraries that this module loaded, so
//! they act on the same connections. Where OpenSSL is linked into it statically, none is found.
//!
//! A process may hold several OpenSSLs, and a connection of one must never be given to another. So the functions are used only
//! when everything agrees that they are `_ssl`'s own (see [`LibSsl::find`]); doubtful cases are refused.

mod connection;

use std::ffi::{CStr, c_char, c_int, c_long, c_ulong, c_void};
use std::os::unix::prelude::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

pub use connection::{Connection, Lent, Trouble};

/// `RTLD_NOLOAD` of Linux: only what is loaded already.
const RTLD_NOLOAD: c_int = libc::RTLD_NOLOAD;

pub type Ssl = c_void;
type Bio = c_void;
type BioMethod = c_void;

/// OpenSSL 1.1.1, as OpenSSL_version_num() writes it.
const OLDEST: c_ulong = 0x1010_1000;
/// The argument of OpenSSL_version() that asks for the version's text.
const OPENSSL_VERSION: c_int = 0;
const BIO_TYPE_SOURCE_SINK: c_int = 0x400;
/// How far from the start of a connection the pointer to its table of methods is looked for, in words. It is the second or the
/// fourth, depending on the version.
const METHOD_WITHIN: usize = 8;

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

            /// Names and addresses of all.
            fn each(&self) -> Vec<(&'static CStr, *const c_void)> {
                vec![$((
                    // The macro that makes names from C strings takes literals only.
                    CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()).expect("ends with one"),
                    self.$name as *const c_void,
                ),)*]
            }
        }
    };
}

functions! {
    SSL_read_ex: fn(*mut Ssl, *mut c_void, usize, *mut usize) -> c_int;
    SSL_write_ex: fn(*mut Ssl, *const c_void, usize, *mut usize) -> c_int;
    SSL_shutdown: fn(*mut Ssl) -> c_int;
    SSL_get_error: fn(*const Ssl, c_int) -> c_int;
    SSL_has_pending: fn(*const Ssl) -> c_int;
    SSL_in_init: fn(*const Ssl) -> c_int;
    SSL_set_bio: fn(*mut Ssl, *mut Bio, *mut Bio);
    SSL_get_ex_data: fn(*const Ssl, c_int) -> *mut c_void;
    TLS_server_method: fn() -> *const c_void;
    BIO_get_new_index: fn() -> c_int;
    BIO_meth_new: fn(c_int, *const c_char) -> *mut BioMethod;
    BIO_meth_set_write: fn(*mut BioMethod, unsafe extern "C" fn(*mut Bio, *const c_char, c_int) -> c_int) -> c_int;
    BIO_meth_set_read: fn(*mut BioMethod, unsafe extern "C" fn(*mut Bio, *mut c_char, c_int) -> c_int) -> c_int;
    BIO_meth_set_ctrl: fn(*mut BioMethod, unsafe extern "C" fn(*mut Bio, c_int, c_long, *mut c_void) -> c_long) -> c_int;
    BIO_meth_set_destroy: fn(*mut BioMethod, unsafe extern "C" fn(*mut Bio) -> c_int) -> c_int;
    BIO_new: fn(*const BioMethod) -> *mut Bio;
    BIO_set_data: fn(*mut Bio, *mut c_void);
    BIO_get_data: fn(*mut Bio) -> *mut c_void;
    BIO_set_init: fn(*mut Bio, c_int);
    BIO_set_flags: fn(*mut Bio, c_int);
    BIO_clear_flags: fn(*mut Bio, c_int);
    ERR_peek_error: fn() -> c_ulong;
    ERR_clear_error: fn();
    OpenSSL_version: fn(c_int) -> *const c_char;
    OpenSSL_version_num: fn() -> c_ulong;
}

/// Which of the two libraries that make up an OpenSSL has a function.
fn is_in_libssl(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"SSL_") || name.to_bytes().starts_with(b"TLS_")
}

/// The version that `_ssl` says it runs with.
pub struct Version {
    pub number: u64,
    pub text: String,
}

/// The library, and the kind of BIO that connections are given.
pub struct LibSsl {
    functions: Functions,
    method: *mut BioMethod,
    _library: Library,
}

// SAFETY: function addresses, and a method table that does not change once it is made.
unsafe impl Send for LibSsl {}
// SAFETY: as above.
unsafe impl Sync for LibSsl {}

static LIBRARY: OnceLock<Option<LibSsl>> = OnceLock::new();

fn library() -> &'static LibSsl {
    LIBRARY.get().and_then(Option::as_ref).expect("a connection was made with it")
}

/// Forgets what calls of OpenSSL have left in this thread's queue of errors. Its functions read the queue for the reason of a
/// failure, so old errors of other code would be mistaken for theirs. Does nothing where no library was found.
pub fn forget_errors() {
    if let Some(library) = LIBRARY.get().and_then(Option::as_ref) {
        library.forget_errors();
    }
}

impl LibSsl {
    /// The library that the shared object at `path`, `_ssl`'s, calls; None where that is not certain. Looked for once.
    pub fn behind(path: &Path, version: impl FnOnce() -> Option<Version>) -> Option<&'static Self> {
        LIBRARY.get_or_init(|| Self::find(path, &version()?)).as_ref()
    }

    /// Looks the functions up among what `_ssl` depends on. They are the ones that it calls only if
    ///
    /// - no other library comes before its own: names are looked up in the global scope first (the program itself,
    ///   `LD_PRELOAD`, what was loaded with `RTLD_GLOBAL`), and it may have been bound there;
    /// - they are one libssl and one libcrypto, and that libssl depends on that libcrypto;
    /// - their version is the one that `_ssl` reports.
    ///
    /// [`made`](Self::made) checks later that connections come from them: `_ssl` may have an OpenSSL inside it.
    fn find(path: &Path, version: &Version) -> Option<Self> {
        let library = loaded(path)?;
        let functions = Functions::find(&library)?;
        // Nothing is called before this is clear.
        if !functions.are_alone() || !functions.belong_together() {
            return None;
        }
        // SAFETY: plain calls; the text is a constant, and the method is never freed.
        let method = unsafe {
            let number = (functions.OpenSSL_version_num)();
            let text = CStr::from_ptr((functions.OpenSSL_version)(OPENSSL_VERSION));
            if number < OLDEST
                || number != version.number as c_ulong
                || text.to_bytes() != version.text.as_bytes()
            {
                return None;
            }
            let index = (functions.BIO_get_new_index)();
            let method = (functions.BIO_meth_new)(index | BIO_TYPE_SOURCE_SINK, c"tokioloop".as_ptr());
            if index == -1 || method.is_null() {
                return None;
            }
            (functions.BIO_meth_set_read)(method, connection::read_input);
            (functions.BIO_meth_set_write)(method, connection::write_output);
            (functions.BIO_meth_set_ctrl)(method, connection::control);
            (functions.BIO_meth_set_destroy)(method, connection::destroy);
            method
        };
        Some(Self { functions, method, _library: library })
    }

    /// Whether a server's connection that was made a moment ago is one of this library: it then refers to the library's table
    /// of methods. Calls nothing on the connection, which may be another library's.
    ///
    /// # Safety
    /// `ssl` is a live connection of some OpenSSL.
    pub unsafe fn made(&self, ssl: *const Ssl) -> bool {
        // SAFETY: the function gives the address of a constant; a connection is a structure of more than a thousand bytes.
        unsafe {
            let methods = (self.functions.TLS_server_method)();
            let words = std::slice::from_raw_parts(ssl.cast::<*const c_void>(), METHOD_WITHIN);
            words.contains(&methods)
        }
    }

    /// What was attached to a connection as its application data.
    ///
    /// # Safety
    /// `ssl` is a live connection of this library.
    pub unsafe fn application_data(&self, ssl: *mut Ssl) -> *mut c_void {
        // SAFETY: promised; index 0 is the application data.
        unsafe { (self.functions.SSL_get_ex_data)(ssl, 0) }
    }

    /// Empties this thread's queue of errors. Most often it is empty, and checking costs less.
    fn forget_errors(&self) {
        // SAFETY: plain calls.
        unsafe {
            if (self.functions.ERR_peek_error)() != 0 {
                (self.functions.ERR_clear_error)();
            }
        }
    }
}

impl Functions {
    /// Whether no other library in the global scope offers a function of one of the names.
    fn are_alone(&self) -> bool {
        self.each().into_iter().all(|(name, address)| {
            // SAFETY: a name that ends with a null byte.
            let global = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            global.is_null() || ptr::eq(global, address)
        })
    }

    /// Whether all come from one libssl and the libcrypto that it depends on.
    fn belong_together(&self) -> bool {
        let (mut libssl, mut libcrypto) = (None, None);
        for (name, address) in self.each() {
            let Some((base, _)) = object_of(address) else { return false };
            let home = if is_in_libssl(name) { &mut libssl } else { &mut libcrypto };
            if *home.get_or_insert(base) != base {
                return false;
            }
        }
        let Some((_, path)) = object_of(self.SSL_read_ex as *const c_void) else { return false };
        let Some(library) = loaded(&path) else { return false };
        Functions::find(&library).is_some_and(|found| found.each() == self.each())
    }
}

/// A shared object that is in the process already.
fn loaded(path: &Path) -> Option<Library> {
    // SAFETY: nothing is loaded that is not there already, so no initialiser runs.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD) }.ok()
}

/// The start and the path of the shared object that contains an address.
fn object_of(address: *const c_void) -> Option<(*mut c_void, PathBuf)> {
    // SAFETY: the structure is plain data, and filled in when the call succeeds; its path is a terminated string then.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(address, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        let path = CStr::from_ptr(info.dli_fname).to_bytes();
        Some((info.dli_fbase, PathBuf::from(std::ffi::OsStr::from_bytes(path))))
    }
}
