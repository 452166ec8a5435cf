//! What travels through a loop's inbox.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::record::{Record, Tagged};
use crate::event_loop::on_loop::OnLoop;
use crate::py::fatal::OrFatal;
use crate::sync::mailbox::{Link, Linked};

/// A message to a loop. Posted by Python threads (which are attached) or by the runtime's threads (which never
/// are); only the former may post Python objects.
pub enum Post {
    Call(Record),
    /// `loop.stop()` from another thread.
    Stop,
    /// Work done outside the loop is finished.
    Finished(Finish),
}

/// Reports finished work to the loop: run on the loop's thread, inside a run. Made by a thread that never attaches, so it
/// carries plain Rust data; the Python objects that wait for it are found through a [`PendingKey`](crate::event_loop::core::PendingKey).
pub type Finish = Box<dyn FnOnce(OnLoop<'_, '_>) -> OrFatal + Send>;

/// A post that is not a record.
#[repr(C)]
struct Letter {
    tagged: Tagged,
    post: Post,
}

// SAFETY: a record's reference, or the letter's box, is away as long as its link is; the tag shows which of the two it was.
unsafe impl Linked for Post {
    #[inline]
    fn into_link(self) -> NonNull<Link> {
        match self {
            Post::Call(record) => record.into_tagged().cast(),
            post => NonNull::from(Box::leak(Box::new(Letter { tagged: Tagged::new(false), post }))).cast(),
        }
    }

    #[inline]
    unsafe fn from_link(link: NonNull<Link>) -> Self {
        let tagged = link.cast::<Tagged>();
        // SAFETY: promised; both begin with a tag, and that with the link.
        unsafe {
            if tagged.as_ref().is_call {
                return Post::Call(Record::from_tagged(tagged));
            }
            Box::from_raw(tagged.cast::<Letter>().as_ptr()).post
        }
    }
}

impl Post {
    /// The call behind a link, if it is one.
    ///
    /// # Safety
    /// The link is in a mailbox of posts, which nothing is taken out of as long as the result is used.
    pub unsafe fn call_behind(link: NonNull<Link>) -> Option<ManuallyDrop<Record>> {
        let tagged = link.cast::<Tagged>();
        // SAFETY: promised; the reference stays the mailbox's.
        unsafe { tagged.as_ref().is_call.then(|| ManuallyDrop::new(Record::from_tagged(tagged))) }
    }
}
