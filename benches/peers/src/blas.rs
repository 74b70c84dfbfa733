//! MKL and OpenBLAS through the C interface of BLAS, loaded at run time so that no build needs them.
#![allow(unsafe_code)] // Foreign functions of a library that is loaded by name.

use std::ffi::{c_char, c_int};
use std::path::PathBuf;

use libloading::Library;
use muster_kernels::Form;

type Sgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);
type SetThreads = unsafe extern "C" fn(c_int);

const ROW_MAJOR: c_int = 101;
const NO_TRANS: c_int = 111;
const TRANS: c_int = 112;

/// A loaded BLAS.
pub struct Blas {
    /// `MKL` or `OpenBLAS`.
    pub name: &'static str,
    /// What the library says of itself.
    pub version: String,
    sgemm: Sgemm,
    set_threads: SetThreads,
    /// The functions live as long as the library is loaded.
    _library: Library,
}

impl Blas {
    /// Intel's, from the loader's path or where `benches/peers/install.sh` installs it.
    pub fn mkl() -> Option<Blas> {
        let library = load(&["libmkl_rt.so.3", "libmkl_rt.so.2"], "venv/lib")?;
        // SAFETY: the types are those of MKL's headers; with the LP64 default its integers are C's.
        unsafe {
            let describe =
                *library.get::<unsafe extern "C" fn(*mut c_char, c_int)>(b"MKL_Get_Version_String").ok()?;
            let mut text = [0; 200];
            describe(text.as_mut_ptr(), text.len() as c_int - 1);
            Some(Blas {
                name: "MKL",
                version: text_of(&text),
                sgemm: *library.get(b"cblas_sgemm").ok()?,
                set_threads: *library.get(b"MKL_Set_Num_Threads").ok()?,
                _library: library,
            })
        }
    }

    /// OpenBLAS, from the loader's path or where `benches/peers/install.sh` installs it.
    pub fn openblas() -> Option<Blas> {
        let names = ["libopenblas.so.0", "libscipy_openblas.so"];
        let library = load(&names, "openblas/scipy_openblas32/lib")?;
        let name = |plain: &str| {
            // SAFETY: only whether the symbol exists is asked.
            let prefixed = unsafe { library.get::<Sgemm>(b"scipy_cblas_sgemm") }.is_ok();
            if prefixed { format!("scipy_{plain}") } else { plain.to_owned() }
        };
        // SAFETY: the types are those of OpenBLAS's headers.
        unsafe {
            let describe = *library
                .get::<unsafe extern "C" fn() -> *const c_char>(name("openblas_get_config").as_bytes())
                .ok()?;
            Some(Blas {
                name: "OpenBLAS",
                version: std::ffi::CStr::from_ptr(describe()).to_string_lossy().into_owned(),
                sgemm: *library.get(name("cblas_sgemm").as_bytes()).ok()?,
                set_threads: *library.get(name("openblas_set_num_threads").as_bytes()).ok()?,
                _library: library,
            })
        }
    }

    /// Threads of the following calls.
    pub fn set_threads(&self, threads: usize) {
        // SAFETY: any positive number is valid.
        unsafe { (self.set_threads)(threads.max(1) as c_int) }
    }

    /// `c = beta * c + op(a) · op(b)`, contiguous and row-major: `op(a)` `[m, k]`, `op(b)` `[k, n]`.
    pub fn matmul(&self, form: Form, [m, n, k]: [usize; 3], a: &[f32], b: &[f32], beta: f32, c: &mut [f32]) {
        assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "operands of {m}×{n}×{k}");
        let (trans_a, lda) = if form == Form::TN { (TRANS, m) } else { (NO_TRANS, k) };
        let (trans_b, ldb) = if form == Form::NT { (TRANS, k) } else { (NO_TRANS, n) };
        let [m, n, k, lda, ldb, ldc] = [m, n, k, lda, ldb, n].map(|x| x as c_int);
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: the assert covers what the sizes and strides reach.
        unsafe { (self.sgemm)(ROW_MAJOR, trans_a, trans_b, m, n, k, 1.0, a, lda, b, ldb, beta, c, ldc) }
    }
}

/// The first of `names` that the loader finds, or that lies in `folder` of the peers.
fn load(names: &[&str], folder: &str) -> Option<Library> {
    let peers = crate::root().join("target/peers").join(folder);
    let paths = names.iter().map(PathBuf::from).chain(names.iter().map(|name| peers.join(name)));
    // SAFETY: the initializers of the BLAS libraries set up their own state only.
    paths.filter_map(|path| unsafe { Library::new(path) }.ok()).next()
}

fn text_of(bytes: &[c_char]) -> String {
    let text: Vec<u8> = bytes.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8).collect();
    String::from_utf8_lossy(&text).trim().to_owned()
}
