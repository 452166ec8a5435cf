//! `create_future`, `create_task`, and the `__init__` of both types. An object is filled before it has a loop, and so before another thread
//! can do anything with it; its loop comes last.

use std::ffi::c_int;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{Borrowed, ffi};

use super::fields::{FUTURE, Future, FutureKind, Kind, TASK, Task, TaskKind, name_text, task_of};
use super::{eager, future, wakeup};
use crate::event_loop::EventLoop;
use crate::event_loop::core::{Core, Ready};
use crate::proto::task::Begun;
use crate::py::names::{Name as Interned, names};
use crate::py::{Owned, context, imports, raw};
use crate::sync::held::{Change, Sole};

/// A pending future of the loop: a native one, unless the loop was made to use asyncio's.
pub fn create_future(event_loop: &Bound<'_, EventLoop>) -> PyResult<Owned> {
    let py = event_loop.py();
    if !event_loop.get().shared.has_native_tasks() {
        return asyncio_object(py, imports::asyncio_future(py)?, &[], event_loop.as_ptr());
    }
    // SAFETY: our own type; the object is complete before another thread can have it.
    unsafe {
        let object = FUTURE.allocate(py)?;
        complete(FutureKind::future(object.as_ptr()), event_loop, source_traceback(event_loop)?);
        Ok(object)
    }
}

/// `class(*args, loop=event_loop)`.
fn asyncio_object(
    py: Python<'_>,
    class: &Bound<'_, PyAny>,
    args: &[*mut ffi::PyObject],
    event_loop: *mut ffi::PyObject,
) -> PyResult<Owned> {
    let mut all = [std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut()];
    all[1..=args.len()].copy_from_slice(args);
    all[args.len() + 1] = event_loop;
    // SAFETY: the positional arguments begin at all[1], one keyword value behind them; all[0] is scratch.
    unsafe {
        Owned::steal_or_err(
            py,
            ffi::PyObject_Vectorcall(
                class.as_ptr(),
                all.as_ptr().add(1),
                args.len() | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                names().loop_keyword.as_ptr(),
            ),
        )
    }
}

/// Gives a new future its loop, and in debug mode the place where it was made. The last of what makes it: other threads that have the
/// object, by a class derived from its type, can change it from here on.
///
/// # Safety
/// The future has no loop, and this is the only thread that fills it: others, if they have it, find that it has no loop.
#[inline]
unsafe fn complete(future: &Future, event_loop: &Bound<'_, EventLoop>, source_traceback: Option<Owned>) {
    // SAFETY: promised: without a loop there is no lock by which another thread could reach what is set here.
    let sole = unsafe { Sole::new() };
    if source_traceback.is_some() {
        future.rare_mut(sole).source_traceback = source_traceback;
    }
    future.set_loop(event_loop.clone().into_any().into(), sole);
}

/// In debug mode, the place where a future is made.
#[inline]
fn source_traceback(event_loop: &Bound<'_, EventLoop>) -> PyResult<Option<Owned>> {
    match event_loop.get().shared.is_debug() {
        true => extract_stack(event_loop.py()).map(Some),
        false => Ok(None),
    }
}

#[cold]
fn extract_stack(py: Python<'_>) -> PyResult<Owned> {
    Ok(imports::traceback_extract_stack(py)?.call0()?.into())
}

/// A native task of `event_loop` whose first step is on the queue.
///
/// # Safety
/// `coro` is alive.
#[inline]
unsafe fn native_task(event_loop: &Bound<'_, EventLoop>, coro: *mut ffi::PyObject) -> PyResult<Owned> {
    let py = event_loop.py();
    // SAFETY: our own type; the object is complete before another thread can have it.
    unsafe {
        let object = TASK.allocate(py)?;
        task_of(object.as_ptr()).future.life.begin_alone(Sole::new());
        let coro = Bound::from_borrowed_ptr(py, coro);
        fill(event_loop, &object, &coro, Options::default())?;
        Ok(object)
    }
}

/// A native task whose first step has been made. On the loop's thread, inside a run.
pub(super) fn eager_task(
    event_loop: &Bound<'_, EventLoop>,
    coro: &Bound<'_, PyAny>,
    context: Bound<'_, PyAny>,
) -> PyResult<Owned> {
    let py = event_loop.py();
    // Complete before another thread can have it.
    let object = TASK.allocate(py)?;
    // SAFETY: as above.
    let made = unsafe {
        task_of(object.as_ptr()).future.life.begin_alone(Sole::new());
        fill(event_loop, &object, coro, Options { name: None, context: Some(context), eager_start: true })
    };
    if made.is_err() {
        // The first step's KeyboardInterrupt or SystemExit, which the caller gets, does not count as never retrieved.
        // SAFETY: a native Task; one that was not filled in is pending.
        let _ = future::failure(py, unsafe { &task_of(object.as_ptr()).future });
    }
    made.map(|()| object)
}

/// What a task may be given besides its coroutine.
#[derive(Default)]
struct Options<'py> {
    name: Option<Bound<'py, PyAny>>,
    context: Option<Bound<'py, PyAny>>,
    eager_start: bool,
}

/// Makes a task of an empty object, and starts it.
///
/// # Safety
/// `object` is a native Task that was begun and has no loop yet, by this thread.
unsafe fn fill(
    event_loop: &Bound<'_, EventLoop>,
    object: &Owned,
    coro: &Bound<'_, PyAny>,
    options: Options<'_>,
) -> PyResult<()> {
    let py = event_loop.py();
    let lp = event_loop.get();
    // SAFETY: promised.
    let task = unsafe { task_of(object.as_ptr()) };
    // SAFETY: alive.
    if unsafe { ffi::PyCoro_CheckExact(coro.as_ptr()) } == 0
        && !imports::iscoroutine(py)?.call1((coro,))?.is_truthy()?
    {
        return Err(PyTypeError::new_err(format!("a coroutine was expected, got {}", coro.repr()?)));
    }
    let context = match options.context {
        Some(context) => context.into(),
        None => context::copy_current(py)?,
    };
    let name = options.name.as_ref().map(name_text).transpose()?;
    // The last thing that can fail: what did not become a task can be tried again.
    let source_traceback = source_traceback(event_loop)?;
    // SAFETY: promised; so no other thread reaches the fields.
    unsafe {
        let sole = Sole::new();
        task.coro.put(coro.clone().into(), sole);
        task.run_context.put(context, sole);
        if let Some(name) = name {
            drop(task.replace_name(name, sole));
        }
        raw::enable_try_incref(object.as_ptr());
        complete(&task.future, event_loop, source_traceback);
    }
    if options.eager_start && lp.shared.is_running() {
        lp.check_thread(py)?;
        number(lp, task);
        return eager::start(event_loop, object);
    }
    let by_handle = lp.shared.steps_by_handle();
    let queued = object.clone_ref(py);
    let entered = lp.with_tasks(|core, change| {
        // SAFETY: new, and not in the list yet.
        unsafe { lp.tasks.link(object.as_ptr(), change) };
        give_number(core, task, change);
        if by_handle {
            return Some(Ready::Task(queued));
        }
        core.push(Ready::Task(queued)).err()
    });
    match entered {
        Ok(None) => Ok(()),
        Ok(Some(_)) if lp.shared.is_closed() => Err(crate::event_loop::closed()),
        Ok(Some(back)) => match back.into_task() {
            Some(task) => wakeup::push(py, event_loop.as_ptr(), task),
            None => Ok(()),
        },
        Err(foreign) => Err(lp.wrong_thread(py, foreign)),
    }
}

fn number(lp: &EventLoop, task: &Task) {
    let _ = lp.with_tasks(|core, change| give_number(core, task, change));
}

/// Numbers a task without a name. Numbers are taken from the process's counter a block at a time, so that loops share nothing
/// while they make tasks.
#[inline]
fn give_number(core: &mut Core, task: &Task, change: Change<'_>) {
    task.number(change, || {
        if core.task_numbers.is_empty() {
            static NEXT: AtomicUsize = AtomicUsize::new(1);
            const BLOCK: usize = 1024;
            let first = NEXT.fetch_add(BLOCK, Ordering::Relaxed);
            core.task_numbers = first..first + BLOCK;
        }
        core.task_numbers.next().expect("filled above")
    });
}

/// `create_task(coro, *, name=None, context=None, **kwargs)`: through the task factory if one is set.
unsafe extern "C" fn create_task(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: isize,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by Python as a fast call with keywords.
    unsafe {
        raw::enter(|py| {
            let event_loop = Bound::from_borrowed_ptr(py, object).cast_into_unchecked::<EventLoop>();
            let lp = event_loop.get();
            lp.check_open()?;
            lp.check_thread(py)?;
            if nargs > 1 {
                return Err(PyTypeError::new_err(format!(
                    "create_task() takes 1 positional argument but {nargs} were given"
                )));
            }
            let plain = keywords.is_null() || ffi::PyTuple_GET_SIZE(keywords) == 0;
            if nargs == 1 && plain && lp.with(py, |core| core.task_factory.is_none())? {
                if lp.shared.has_native_tasks() {
                    return Ok(native_task(&event_loop, *args)?.into_ptr());
                }
                return Ok(asyncio_object(py, imports::asyncio_task(py)?, &[*args], object)?.into_ptr());
            }
            let options = PyDict::new(py);
            if !keywords.is_null() {
                let names = Bound::from_borrowed_ptr(py, keywords).cast_into_unchecked::<PyTuple>();
                let values = slice::from_raw_parts(args.offset(nargs), names.len());
                for (name, &value) in names.iter().zip(values) {
                    options.set_item(name, Borrowed::<PyAny>::from_ptr(py, value))?;
                }
            }
            let coro = match nargs {
                1 => Some(Bound::from_borrowed_ptr(py, *args)),
                _ => options.get_item("coro")?,
            };
            let Some(coro) = coro else {
                return Err(crate::event_loop::schedule::missing_arguments("create_task", &["coro"]));
            };
            if nargs == 0 {
                options.del_item("coro")?;
            }
            Ok(task_with_options(&event_loop, &coro, &options)?.into_ptr())
        })
    }
}

fn task_with_options<'py>(
    event_loop: &Bound<'py, EventLoop>,
    coro: &Bound<'py, PyAny>,
    options: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let factory =
        event_loop.get().with(py, |core| core.task_factory.as_ref().map(|factory| factory.clone_ref(py)))?;
    let native = event_loop.get().shared.has_native_tasks();
    // asyncio's own eager factory means its Task; with native tasks it means ours.
    let eager = native && factory.as_ref().is_some_and(|factory| is_eager_factory(py, factory));
    let Some(factory) = factory.filter(|_| !eager) else {
        options.set_item(names().r#loop.bind(py), event_loop)?;
        if eager {
            options.set_item("eager_start", true)?;
        }
        let class = match native {
            // SAFETY: a live type.
            true => unsafe { Bound::from_borrowed_ptr(py, TASK.native().cast()) },
            false => imports::asyncio_task(py)?.clone(),
        };
        return class.call((coro,), Some(options));
    };
    // From 3.14 on asyncio hands every option to the factory; before, it set the name afterwards.
    let name = if cfg!(Py_3_14) { None } else { take_option(options, names().name)? };
    if options.get_item(names().context.bind(py))?.is_some_and(|context| context.is_none()) {
        options.del_item(names().context.bind(py))?;
    }
    raw::check_stack()?;
    let task = factory.bind(py).call((event_loop, coro), Some(options))?;
    if let Some(name) = name {
        task.call_method1("set_name", (name,))?;
    }
    Ok(task)
}

fn is_eager_factory(py: Python<'_>, factory: &Owned) -> bool {
    imports::eager_task_factory(py).is_ok_and(|eager| factory.bind(py).is(eager))
}

/// Takes an option out of the dict; None counts as absent.
fn take_option<'py>(options: &Bound<'py, PyDict>, name: Interned) -> PyResult<Option<Bound<'py, PyAny>>> {
    let name = name.bind(options.py());
    let value = options.get_item(name)?;
    if value.is_some() {
        options.del_item(name)?;
    }
    Ok(value.filter(|value| !value.is_none()))
}

// ---- the types' __init__ --------------------------------------------------------------------------------

/// The loop that a future is to belong to: that given, else the one running or set here. TypeError for a loop of another kind.
fn loop_for<'py>(given: Option<Bound<'py, PyAny>>, py: Python<'py>) -> PyResult<Bound<'py, EventLoop>> {
    let event_loop = match given.filter(|given| !given.is_none()) {
        Some(given) => given,
        None => imports::asyncio_get_event_loop(py)?.call0()?,
    };
    event_loop.cast_into::<EventLoop>().map_err(|error| {
        PyTypeError::new_err(format!(
            "a native future or task needs a TokioLoop, not {}; asyncio.Future and asyncio.Task take any loop",
            error.into_inner()
        ))
    })
}

/// The values of keyword arguments that are known by `names`.
fn keyword_values<'py, const N: usize>(
    kind: &str,
    names: [&str; N],
    keywords: Option<Bound<'py, PyDict>>,
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    let mut values = [const { None }; N];
    for (name, value) in keywords.into_iter().flatten() {
        let text: String = name.extract()?;
        match names.iter().position(|known| *known == text) {
            Some(place) => values[place] = Some(value),
            None => {
                return Err(PyTypeError::new_err(format!(
                    "{kind}() got an unexpected keyword argument '{text}'"
                )));
            }
        }
    }
    Ok(values)
}

/// What `__init__` was called with.
unsafe fn init_arguments<'py>(
    py: Python<'py>,
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> (Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>) {
    // SAFETY: a tuple, and a dict or null, as for every tp_init.
    unsafe {
        let args = Bound::from_borrowed_ptr(py, args).cast_into_unchecked();
        let keywords = Bound::from_borrowed_ptr_or_opt(py, keywords);
        (args, keywords.map(|keywords| keywords.cast_into_unchecked()))
    }
}

/// Runs `fill`, once: RuntimeError for a second `__init__`, in whatever thread, since others may have seen the object.
fn begin<K: Kind>(future: &Future, fill: impl FnOnce() -> PyResult<()>) -> PyResult<c_int> {
    let life = &future.life;
    let begun = |_| PyRuntimeError::new_err("the future is initialised already");
    // One that was made complete is begun, too.
    if future.event_loop().is_some() {
        return Err(begun(Begun));
    }
    if K::IS_TASK { life.begin_task() } else { life.begin() }.map_err(begun)?;
    let filled = fill();
    if filled.is_err() && future.event_loop().is_none() {
        life.did_not_begin();
    }
    filled.map(|()| 0)
}

/// `Future(*, loop=None)`.
pub(super) unsafe extern "C" fn future_init(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: called by Python, attached, with a Future.
    unsafe {
        raw::enter(|py| {
            let (args, keywords) = init_arguments(py, args, keywords);
            if !args.is_empty() {
                return Err(PyTypeError::new_err("Future() takes no positional arguments"));
            }
            let [event_loop] = keyword_values("Future", ["loop"], keywords)?;
            let future = FutureKind::future(object);
            begin::<FutureKind>(future, || {
                let event_loop = loop_for(event_loop, py)?;
                complete(future, &event_loop, source_traceback(&event_loop)?);
                Ok(())
            })
        })
    }
}

/// `Task(coro, *, loop=None, name=None, context=None, eager_start=False)`.
pub(super) unsafe extern "C" fn task_init(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: called by Python, attached, with a Task.
    unsafe {
        raw::enter(|py| {
            let (args, keywords) = init_arguments(py, args, keywords);
            let names = ["coro", "loop", "name", "context", "eager_start"];
            let [coro, event_loop, name, context, eager] = keyword_values("Task", names, keywords)?;
            let coro = match (args.len(), coro) {
                (1, None) => args.get_item(0)?,
                (0, Some(coro)) => coro,
                (0, None) => return Err(crate::event_loop::schedule::missing_arguments("Task", &["coro"])),
                (given, _) => {
                    let text = format!("Task() takes 1 positional argument but {given} were given");
                    return Err(PyTypeError::new_err(text));
                }
            };
            let event_loop = loop_for(event_loop, py)?;
            let given =
                |value: Option<Bound<'_, PyAny>>| value.filter(|value| !value.is_none()).map(|v| v.unbind());
            let options = Options {
                name: given(name).map(|name| name.into_bound(py)),
                context: given(context).map(|context| context.into_bound(py)),
                eager_start: eager.map_or(Ok(false), |eager| eager.is_truthy())?,
            };
            let task = Owned::borrow(object);
            begin::<TaskKind>(&task_of(object).future, || fill(&event_loop, &task, &coro, options))
        })
    }
}

/// Adds `create_task` to the type that pyo3 made.
pub fn add_methods(class: &Bound<'_, PyAny>) -> PyResult<()> {
    let doc = c"create_task($self, coro, *, name=None, context=None, **kwargs)\n--\n\nWrap the coroutine in a Task and schedule it.";
    raw::add_method(class, raw::fast_keywords(c"create_task", create_task, doc))
}
