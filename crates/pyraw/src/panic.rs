//! What becomes of a panic: a SystemError that says where it was. It is a bug of ours, and the program goes on or ends in order.
//!
//! pyo3 makes a `PanicException` of one: a BaseException, which programs do not expect, and which pyo3 itself, when it fetches it
//! from Python again, turns back into a panic, with output of its own. So that class is taught to make SystemErrors instead; no
//! instance of it ever is. Our hook, which is this library's own as its copy of `std` is, notes the place and counts, and leaves the
//! printing to Rust's own where no Python exception carries it: in threads that are not Python's.

use std::any::Any;
use std::cell::RefCell;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The library's name, for messages.
static LIBRARY: OnceLock<&str> = OnceLock::new();

/// How many panics there were in this process, including those without an exception.
#[pyfunction]
pub fn _panics() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// The error for a panic that was caught.
#[cold]
pub fn error(payload: &(dyn Any + Send)) -> PyErr {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    describe(text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text"))
}

fn describe(text: &str) -> PyErr {
    let place = PLACE.try_with(|place| place.try_borrow_mut().ok()?.take()).ok().flatten();
    let place = place.map_or(String::new(), |place| format!(" at {place}"));
    PySystemError::new_err(format!("{}a Rust function panicked{place}; this is a bug: {text}", library()))
}

/// The library's name and a colon, set by [`init`].
fn library() -> String {
    LIBRARY.get().map_or(String::new(), |library| format!("{library}: "))
}

/// `PanicException(text)`.
#[pyfunction]
#[pyo3(signature = (_class, *args))]
fn instead_of_panic_exception<'py>(
    _class: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let text = args.get_item(0).ok().and_then(|text| text.extract().ok());
    let text: String = text.unwrap_or_else(|| "no text".into());
    Ok(describe(&text).into_value(args.py()).into_bound(args.py()).into_any())
}

fn note(info: &panic::PanicHookInfo<'_>) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    let place = info.location().map(|location| format!("{}:{}", location.file(), location.line()));
    let _ = PLACE.try_with(|last| last.try_borrow_mut().map(|mut last| *last = place));
}

/// Builds with assertions panic on request, so that tests see what a panic leaves behind.
#[cfg(debug_assertions)]
mod request {
    use std::cell::RefCell;

    use pyo3::prelude::*;

    thread_local! {
        static WHERE: RefCell<Option<String>> = const { RefCell::new(None) };
    }

    /// Have this thread panic where it comes to that place next.
    #[pyfunction]
    pub fn _panic_at(place: String) {
        WHERE.set(Some(place));
    }

    /// Panics there if that was asked for.
    #[track_caller]
    pub fn point(place: &str) {
        let asked = WHERE.with_borrow_mut(|asked| asked.take_if(|asked| asked == place).is_some());
        assert!(!asked, "as asked for in {place}");
    }
}

#[cfg(debug_assertions)]
pub use request::point;

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_place: &str) {}

/// Installs both, once for the process. `library` begins the messages.
pub fn init(module: &Bound<'_, PyModule>, library: &'static str) -> PyResult<()> {
    let _ = LIBRARY.set(library);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(info);
            // SAFETY: asks for a value of the thread's own.
            let is_pythons = unsafe { !ffi::PyGILState_GetThisThreadState().is_null() };
            if !is_pythons || std::env::var_os("RUST_BACKTRACE").is_some_and(|value| !value.is_empty()) {
                print(info);
            }
        }));
    });
    let class: Bound<'_, PyType> = module.py().get_type::<PanicException>();
    class.setattr("__new__", wrap_pyfunction!(instead_of_panic_exception, module)?)?;
    #[cfg(debug_assertions)]
    module.add_function(wrap_pyfunction!(request::_panic_at, module)?)?;
    module.add_function(wrap_pyfunction!(_panics, module)?)
}
