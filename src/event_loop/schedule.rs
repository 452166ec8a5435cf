//! `call_soon`, `call_later` and `call_at`: raw fast-call methods, since every task step goes through one of them.

use std::slice;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::EventLoop;
use super::core::Ready;
use super::handle::{self, HandleRef};
use super::queue::{self, loop_of};
use super::remote::{Post, Record, RemoteCall};
use crate::py::names::names;
use crate::py::{Owned, context, imports, raw};
use crate::timer::deadline_from_seconds;

/// The arguments of a scheduling call, borrowed from the caller's array.
struct Call<'a> {
    /// The leading time, for timers.
    when: Option<*mut ffi::PyObject>,
    callback: *mut ffi::PyObject,
    args: &'a [*mut ffi::PyObject],
    context: Option<*mut ffi::PyObject>,
}

/// Reads the arguments: `lead` names the positional ones before `*args` (the callback last).
///
/// # Safety
/// The arguments are those of a fast call with keywords.
#[inline(always)]
unsafe fn parse<'a>(
    py: Python<'_>,
    method: &str,
    lead: &'static [&'static str],
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> PyResult<Call<'a>> {
    // SAFETY: `nargs` positional arguments, then one value per keyword name.
    let positional = unsafe { raw::arguments::slice_of(args, nargs as usize) };
    if keywords.is_null() && positional.len() >= lead.len() {
        return Ok(Call::of_positional(positional, lead, None));
    }
    // SAFETY: promised.
    unsafe { parse_named(py, method, lead, args, positional, keywords) }
}

/// The same where something is given by name, or missing.
///
/// # Safety
/// As for [`parse`].
unsafe fn parse_named<'a>(
    py: Python<'_>,
    method: &str,
    lead: &'static [&'static str],
    args: *const *mut ffi::PyObject,
    positional: &'a [*mut ffi::PyObject],
    keywords: *mut ffi::PyObject,
) -> PyResult<Call<'a>> {
    let mut context = None;
    let mut named = [None; 2];
    if !keywords.is_null() {
        // SAFETY: `keywords` is a tuple of str, and the values follow the positional arguments.
        unsafe {
            for index in 0..ffi::PyTuple_GET_SIZE(keywords) {
                let name = ffi::PyTuple_GET_ITEM(keywords, index);
                let value = *args.add(positional.len() + index as usize);
                if name == names().context.as_ptr() || is_text(name, "context") {
                    context = (value != ffi::Py_None()).then_some(value);
                } else {
                    *named_place(py, method, lead, positional.len(), name, &mut named)? = Some(value);
                }
            }
        }
    }
    if positional.len() >= lead.len() {
        return Ok(Call::of_positional(positional, lead, context));
    }
    for (place, value) in positional.iter().enumerate() {
        named[place] = Some(*value);
    }
    match (lead.len(), named) {
        (1, [Some(callback), _]) => Ok(Call { when: None, callback, args: &[], context }),
        (2, [when @ Some(_), Some(callback)]) => Ok(Call { when, callback, args: &[], context }),
        _ => {
            let missing: Vec<_> =
                lead.iter().zip(named).filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
            Err(missing_arguments(method, &missing))
        }
    }
}

/// CPython's words for arguments that are not there.
pub(super) fn missing_arguments(method: &str, names: &[&str]) -> PyErr {
    let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    PyTypeError::new_err(format!(
        "{method}() missing {} required positional argument{plural}: {}",
        names.len(),
        quoted.join(" and ")
    ))
}

/// Whether a keyword's name is `text`.
///
/// # Safety
/// Attached; `name` is a str.
pub(super) unsafe fn is_text(name: *mut ffi::PyObject, text: &str) -> bool {
    // SAFETY: promised; the bytes are compared at once.
    unsafe {
        let mut len = 0;
        let start = ffi::PyUnicode_AsUTF8AndSize(name, &mut len);
        if start.is_null() {
            ffi::PyErr_Clear(); // Lone surrogates: no name of ours.
            return false;
        }
        slice::from_raw_parts(start.cast::<u8>(), len as usize) == text.as_bytes()
    }
}

/// Where the value of a leading argument goes that is given by name.
#[cold]
fn named_place<'n>(
    py: Python<'_>,
    method: &str,
    lead: &[&str],
    given: usize,
    name: *mut ffi::PyObject,
    named: &'n mut [Option<*mut ffi::PyObject>; 2],
) -> PyResult<&'n mut Option<*mut ffi::PyObject>> {
    // SAFETY: a str of the caller's keyword tuple.
    let (place, text) = unsafe {
        let text: Borrowed<'_, '_, PyAny> = Borrowed::from_ptr(py, name);
        (lead.iter().position(|lead| is_text(name, lead)), text)
    };
    match place {
        Some(place) if place < given => {
            Err(PyTypeError::new_err(format!("{method}() got multiple values for argument {}", text.repr()?)))
        }
        Some(place) => Ok(&mut named[place]),
        None => Err(PyTypeError::new_err(format!(
            "{method}() got an unexpected keyword argument {}",
            text.repr()?
        ))),
    }
}

impl<'a> Call<'a> {
    /// Of positional arguments that are all there.
    #[inline]
    fn of_positional(
        positional: &'a [*mut ffi::PyObject],
        lead: &[&str],
        context: Option<*mut ffi::PyObject>,
    ) -> Self {
        let (when, rest) =
            if lead.len() == 2 { (Some(positional[0]), &positional[1..]) } else { (None, positional) };
        Self { when, callback: rest[0], args: &rest[1..], context }
    }

    #[inline]
    fn context(&self, py: Python<'_>) -> PyResult<Owned> {
        match self.context {
            // SAFETY: borrowed from the caller, alive.
            Some(context) => Ok(unsafe { Owned::borrow(context) }),
            None => context::copy_current(py),
        }
    }

    /// asyncio's checks in debug mode.
    #[cold]
    fn check_callback(&self, py: Python<'_>, method: &str) -> PyResult<()> {
        // SAFETY: alive.
        let callback = unsafe { Bound::from_borrowed_ptr(py, self.callback) };
        check_callback(&callback, method)
    }
}

/// Refuses coroutines, coroutine functions and what can't be called.
fn check_callback(callback: &Bound<'_, PyAny>, method: &str) -> PyResult<()> {
    let py = callback.py();
    let is = |test: &Bound<'_, PyAny>| -> PyResult<bool> { test.call1((callback,))?.is_truthy() };
    if is(imports::iscoroutine(py)?)? || is(imports::iscoroutinefunction(py)?)? {
        return Err(PyTypeError::new_err(format!("coroutines cannot be used with {method}()")));
    }
    if !callback.is_callable() {
        return Err(PyTypeError::new_err(format!(
            "a callable object was expected by {method}(), got {}",
            callback.repr()?
        )));
    }
    Ok(())
}

/// Queues the callback; returns the Handle.
unsafe fn soon(py: Python<'_>, object: *mut ffi::PyObject, method: &str, call: &Call<'_>) -> PyResult<Owned> {
    // SAFETY: as for the callers: an EventLoop and live arguments.
    let borrowed = unsafe { loop_of(py, object) };
    let event_loop = borrowed.get();
    event_loop.check_open()?;
    if event_loop.shared.is_debug() {
        call.check_callback(py, method)?;
    }
    if call.context.is_some() {
        note_asyncio_task(event_loop, call.callback);
    }
    let context = call.context(py)?;
    // SAFETY: as for the callers.
    unsafe { queue::soon_in(py, object, call.callback, call.args, context) }
}

/// Notes whether the callback is a step of a task of asyncio's own type: then looking for such tasks is worth it.
fn note_asyncio_task(event_loop: &EventLoop, callback: *mut ffi::PyObject) {
    if event_loop.shared.may_have_asyncio_tasks() {
        return;
    }
    // SAFETY: alive; a type's name is a C string.
    let kind = unsafe { std::ffi::CStr::from_ptr((*ffi::Py_TYPE(callback)).tp_name) };
    // A Python-level `Task.__step` is a bound method.
    if kind == c"_asyncio.TaskStepMethWrapper" || kind == c"TaskStepMethWrapper" || kind == c"method" {
        event_loop.shared.note_asyncio_task();
    }
}

pub unsafe extern "C" fn call_soon(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords; the fast path drops no `Py`.
    unsafe {
        raw::enter_hot(|py| {
            let call = parse(py, "call_soon", &["callback"], args, nargs, keywords)?;
            Ok(soon(py, object, "call_soon", &call)?.into_ptr())
        })
    }
}

pub unsafe extern "C" fn call_soon_threadsafe(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords.
    unsafe {
        raw::enter_hot(|py| {
            let call = parse(py, "call_soon_threadsafe", &["callback"], args, nargs, keywords)?;
            let borrowed = loop_of(py, object);
            let event_loop = borrowed.get();
            event_loop.check_open()?;
            if event_loop.shared.is_mine() {
                return Ok(soon(py, object, "call_soon_threadsafe", &call)?.into_ptr());
            }
            if event_loop.shared.is_debug() {
                call.check_callback(py, "call_soon_threadsafe")?;
            }
            let context = call.context(py)?;
            let traceback = match event_loop.shared.is_debug() {
                true => Some(handle::source_traceback(py)?),
                false => None,
            };
            let inner = traceback.as_ref().map(|traceback| traceback.clone_ref(py));
            let given = call.context.is_some();
            let remote = RemoteCall::new(py, call.callback, call.args, &context, given, inner)?;
            let (remote, shown) = Record::pair(py, remote)?;
            let handle = HandleRef::make_remote(py, object, shown, context)?;
            if let Some(traceback) = traceback {
                handle.set_traceback(traceback);
            }
            let refused = match event_loop.shared.claim() {
                // The loop does not run: two pushes that call no Python, behind what was posted before, onto the queue.
                Ok(claim) => {
                    let core = event_loop.core_mut();
                    core.take_posts();
                    let pushed = core.push(Ready::Remote(remote));
                    // What is refused goes after the claim: its release may run any code, a collection too, which would wait for
                    // the threads that wait for the claim.
                    drop(claim);
                    pushed.is_err()
                }
                Err(_) => event_loop.shared.inbox.post(Post::Call(remote)).is_err(),
            };
            // Closed since the check above.
            if refused { Err(event_loop.refusal()) } else { Ok(handle.into_object().into_ptr()) }
        })
    }
}

unsafe fn at(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    method: &str,
    call: &Call<'_>,
    when: f64,
) -> PyResult<Owned> {
    // SAFETY: as for the callers.
    let borrowed = unsafe { loop_of(py, object) };
    let event_loop = borrowed.get();
    event_loop.check_open()?;
    // Refuses other threads while the loop runs.
    let spare = event_loop.with(py, |core| core.free_timers.pop())?;
    // SAFETY: one of the loop's free timers.
    let reuse = unsafe { HandleRef::again(py, spare) };
    let debug = event_loop.shared.is_debug();
    if debug {
        call.check_callback(py, method)?;
    }
    let context = call.context(py)?;
    // SAFETY: all alive; `reuse` is this loop's.
    let handle =
        unsafe { HandleRef::make_timer(py, reuse, when, object, call.callback, call.args, context)? };
    if debug {
        handle.set_traceback(handle::source_traceback(py)?);
    }
    let result = handle.as_object().clone_ref(py);
    let refused = event_loop.with(py, move |core| {
        if core.closed {
            return Some(handle);
        }
        core.timers.push(deadline_from_seconds(when), handle);
        None
    })?;
    // Closed since the check above.
    if refused.is_some() { Err(event_loop.refusal()) } else { Ok(result) }
}

/// Seconds given as any real number.
fn seconds(py: Python<'_>, value: *mut ffi::PyObject, none: &'static str) -> PyResult<f64> {
    // SAFETY: borrowed from the caller's arguments.
    unsafe {
        if value == ffi::Py_None() {
            return Err(PyTypeError::new_err(none));
        }
        let seconds = ffi::PyFloat_AsDouble(value);
        if seconds == -1.0 && !ffi::PyErr_Occurred().is_null() {
            return Err(PyErr::fetch(py));
        }
        Ok(seconds)
    }
}

pub unsafe extern "C" fn call_later(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords.
    unsafe {
        raw::enter_hot(|py| {
            let call = parse(py, "call_later", &["delay", "callback"], args, nargs, keywords)?;
            let delay = seconds(py, call.when.expect("timed"), "delay must not be None")?;
            Ok(at(py, object, "call_later", &call, super::time() + delay)?.into_ptr())
        })
    }
}

pub unsafe extern "C" fn call_at(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords.
    unsafe {
        raw::enter_hot(|py| {
            let call = parse(py, "call_at", &["when", "callback"], args, nargs, keywords)?;
            let when = seconds(py, call.when.expect("timed"), "when cannot be None")?;
            Ok(at(py, object, "call_at", &call, when)?.into_ptr())
        })
    }
}

/// Adds the raw methods to the type that pyo3 made.
pub fn add_methods(class: &Bound<'_, PyAny>) -> PyResult<()> {
    let table = [
        (c"call_soon", call_soon as raw::FastKeywords, c"call_soon($self, callback, *args, context=None)\n--\n\nRun the callback in the loop's next turn; returns its Handle."),
        (c"call_soon_threadsafe", call_soon_threadsafe, c"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\nAs call_soon, from any thread; wakes the loop."),
        (c"call_later", call_later, c"call_later($self, delay, callback, *args, context=None)\n--\n\nRun the callback once after `delay` seconds; returns its TimerHandle."),
        (c"call_at", call_at, c"call_at($self, when, callback, *args, context=None)\n--\n\nRun the callback when loop.time() reads `when` seconds; returns its TimerHandle."),
    ];
    for (name, function, doc) in table {
        raw::add_method(class, raw::fast_keywords(name, function, doc))?;
    }
    Ok(())
}
