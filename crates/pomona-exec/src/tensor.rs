//! Tensors of dynamic rank: floats on a device, integers and truth values on the host, where indices are used.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Shape, Slice, TensorData};

use crate::burn_types::{
    ActivationOps, AutodiffBackend, B, D, FloatTensorOps, TensorMetadata, from_host, host, is_host,
    update_host,
};
use crate::device::Device;
use crate::error::{ExecError, Result};

/// What a tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit floats.
    Float,
    /// 64-bit integers.
    Int,
    /// Truth values.
    Bool,
}

#[derive(Clone)]
pub(crate) enum Data {
    Float(D),
    Int(Arc<Vec<i64>>),
    Bool(Arc<Vec<bool>>),
}

/// A tensor. Clones share their data.
#[derive(Clone)]
pub struct Tensor {
    pub(crate) data: Data,
    pub(crate) shape: Vec<usize>,
    pub(crate) device: Device,
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}{:?} on {:?}", self.kind(), self.shape, self.device)
    }
}

fn mismatch(message: String) -> ExecError {
    ExecError::Tensor(message)
}

impl Tensor {
    /// Floats, row-major. The number of values must be the product of the shape.
    pub fn from_f32(values: Vec<f32>, shape: &[usize], device: &Device) -> Result<Tensor> {
        check_count(values.len(), shape)?;
        let data = if device.is_cpu() {
            from_host(values, shape)
        } else {
            B::float_from_data(TensorData::new(values, shape.to_vec()), device.dispatch())
        };
        Ok(Tensor::float(data, device))
    }

    /// Integers, row-major.
    pub fn from_i64(values: Vec<i64>, shape: &[usize], device: &Device) -> Result<Tensor> {
        check_count(values.len(), shape)?;
        Ok(Tensor { data: Data::Int(Arc::new(values)), shape: shape.to_vec(), device: device.clone() })
    }

    /// Truth values, row-major.
    pub fn from_bool(values: Vec<bool>, shape: &[usize], device: &Device) -> Result<Tensor> {
        check_count(values.len(), shape)?;
        Ok(Tensor { data: Data::Bool(Arc::new(values)), shape: shape.to_vec(), device: device.clone() })
    }

    /// One number everywhere.
    pub fn full(value: f32, shape: &[usize], device: &Device) -> Result<Tensor> {
        let count = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        let count = count.ok_or_else(|| mismatch(format!("shape {shape:?} is too large")))?;
        Tensor::from_f32(vec![value; count], shape, device)
    }

    pub(crate) fn float(data: D, device: &Device) -> Tensor {
        Tensor { shape: data.shape().to_vec(), data: Data::Float(data), device: device.clone() }
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Kind of the elements.
    pub fn kind(&self) -> Kind {
        match &self.data {
            Data::Float(_) => Kind::Float,
            Data::Int(_) => Kind::Int,
            Data::Bool(_) => Kind::Bool,
        }
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn as_float(&self) -> Result<D> {
        match &self.data {
            Data::Float(d) => Ok(d.clone()),
            _ => Err(mismatch(format!("{self:?} was found where floats were expected"))),
        }
    }

    /// The integers, row-major.
    pub fn as_i64(&self) -> Result<&[i64]> {
        match &self.data {
            Data::Int(v) => Ok(v),
            _ => Err(mismatch(format!("{self:?} was found where integers were expected"))),
        }
    }

    /// The truth values, row-major.
    pub fn as_bool(&self) -> Result<&[bool]> {
        match &self.data {
            Data::Bool(v) => Ok(v),
            _ => Err(mismatch(format!("{self:?} was found where truth values were expected"))),
        }
    }

    /// Elements as floats, row-major.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.with_f32(<[f32]>::to_vec)
    }

    /// Calls `f` on the elements as floats, without a copy for contiguous tensors on the CPU.
    pub fn with_f32<R>(&self, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
        match &self.data {
            Data::Float(d) => {
                if let Some(flex) = host(d)
                    && let Some(values) = flex.as_slice::<f32>()
                {
                    return Ok(f(values));
                }
                let read = futures_block(B::float_into_data(d.clone()));
                let data = read.map_err(|e| mismatch(format!("{self:?} cannot be read back: {e:?}")))?;
                let values = data.try_into_vec::<f32>().map_err(|e| mismatch(format!("{self:?}: {e:?}")))?;
                Ok(f(&values))
            }
            Data::Int(v) => Ok(f(&v.iter().map(|v| *v as f32).collect::<Vec<_>>())),
            Data::Bool(v) => Ok(f(&v.iter().map(|v| f32::from(u8::from(*v))).collect::<Vec<_>>())),
        }
    }

    /// Changes the floats, in place where no other tensor shares them and they are on the CPU.
    ///
    /// # Errors
    /// Where the tensor holds no floats.
    pub fn update(&mut self, f: impl FnOnce(&mut [f32])) -> Result<()> {
        let Data::Float(d) = &self.data else {
            return Err(mismatch(format!("{self:?} was found where floats were expected")));
        };
        // What is left behind has no elements, so that the values have one owner.
        let empty = from_host(Vec::new(), &[0]);
        if !is_host(d) {
            let mut values = self.to_f32()?;
            f(&mut values);
            *self = Tensor::from_f32(values, &self.shape.clone(), &self.device.clone())?;
            return Ok(());
        }
        let Data::Float(d) = std::mem::replace(&mut self.data, Data::Float(empty)) else { return Ok(()) };
        self.data = Data::Float(update_host(d, f));
        Ok(())
    }

    fn map_float(&self, f: impl FnOnce(D) -> D) -> Result<Tensor> {
        Ok(Tensor::float(f(self.as_float()?), &self.device))
    }

    fn zip_float(&self, other: &Tensor, f: impl FnOnce(D, D) -> D) -> Result<Tensor> {
        if self.shape != other.shape {
            return Err(mismatch(format!("{self:?} and {other:?} have different shapes")));
        }
        Ok(Tensor::float(f(self.as_float()?, other.as_float()?), &self.device))
    }

    /// Element-wise sum of equal shapes.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        self.zip_float(other, B::float_add)
    }

    /// Element-wise difference of equal shapes.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        self.zip_float(other, B::float_sub)
    }

    /// Element-wise product of equal shapes.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        self.zip_float(other, B::float_mul)
    }

    /// Every element times a number.
    pub fn scale(&self, factor: f32) -> Result<Tensor> {
        self.map_float(|t| B::float_mul_scalar(t, factor.into()))
    }

    /// Indices `range` of an axis.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Tensor> {
        let Some(&size) = self.shape.get(axis) else {
            return Err(mismatch(format!("{self:?} has no axis {axis}")));
        };
        if range.start > range.end || range.end > size {
            return Err(mismatch(format!("{self:?}: axis {axis} does not hold {range:?}")));
        }
        let mut shape = self.shape.clone();
        shape[axis] = range.len();
        let device = self.device.clone();
        let data = match &self.data {
            Data::Float(_) if range.is_empty() => return Tensor::from_f32(Vec::new(), &shape, &device),
            Data::Float(d) => {
                let mut slices = vec![Slice::full(); self.shape.len()];
                slices[axis] = range.into();
                Data::Float(B::float_slice(d.clone(), &slices))
            }
            Data::Int(v) => Data::Int(Arc::new(slice_rows(v, &self.shape, axis, range))),
            Data::Bool(v) => Data::Bool(Arc::new(slice_rows(v, &self.shape, axis, range))),
        };
        Ok(Tensor { data, shape, device })
    }

    /// Tensors joined along an axis; empty ones cost nothing.
    pub fn concat(parts: &[Tensor], axis: usize) -> Result<Tensor> {
        let Some(first) = parts.first() else {
            return Err(mismatch("nothing to join: at least one tensor was expected".to_owned()));
        };
        let fits = |t: &Tensor| {
            t.kind() == first.kind()
                && t.shape.len() == first.shape.len()
                && axis < t.shape.len()
                && t.shape.iter().zip(&first.shape).enumerate().all(|(i, (a, b))| i == axis || a == b)
        };
        if let Some(bad) = parts.iter().find(|t| !fits(t)) {
            return Err(mismatch(format!("{bad:?} does not join {first:?} along axis {axis}")));
        }
        let mut shape = first.shape.clone();
        shape[axis] = parts.iter().map(|t| t.shape[axis]).sum();
        let full: Vec<&Tensor> = parts.iter().filter(|t| t.elements() > 0).collect();
        match full.as_slice() {
            [] => return first.reshape(&shape),
            [one] => return Ok((*one).clone()),
            _ => {}
        }
        let data = match &first.data {
            Data::Float(_) => {
                let tensors = full.iter().map(|t| t.as_float()).collect::<Result<Vec<D>>>()?;
                Data::Float(B::float_cat(tensors, axis))
            }
            Data::Int(_) => {
                let v = full.iter().map(|t| Ok((t.as_i64()?, t.shape[axis]))).collect::<Result<Vec<_>>>()?;
                Data::Int(Arc::new(join_rows(&v, &first.shape, axis)))
            }
            Data::Bool(_) => {
                let v = full.iter().map(|t| Ok((t.as_bool()?, t.shape[axis]))).collect::<Result<Vec<_>>>()?;
                Data::Bool(Arc::new(join_rows(&v, &first.shape, axis)))
            }
        };
        Ok(Tensor { data, shape, device: first.device.clone() })
    }

    /// The same elements in another shape.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        check_count(self.elements(), shape)?;
        let data = match &self.data {
            Data::Float(d) => Data::Float(B::float_reshape(d.clone(), Shape::from(shape.to_vec()))),
            other => other.clone(),
        };
        Ok(Tensor { data, shape: shape.to_vec(), device: self.device.clone() })
    }

    /// Axes in a new order.
    pub fn transpose(&self, axes: &[usize]) -> Result<Tensor> {
        let shape: Vec<usize> = axes.iter().filter_map(|a| self.shape.get(*a).copied()).collect();
        if shape.len() != self.shape.len() || axes.len() != self.shape.len() {
            return Err(mismatch(format!("{self:?} has no order {axes:?}")));
        }
        let data = match &self.data {
            Data::Float(d) => Data::Float(B::float_permute(d.clone(), axes)),
            Data::Int(v) => Data::Int(Arc::new(permute(v, &self.shape, axes))),
            Data::Bool(v) => Data::Bool(Arc::new(permute(v, &self.shape, axes))),
        };
        Ok(Tensor { data, shape, device: self.device.clone() })
    }

    /// `[m, k] x [k, n]`, or with equal leading batch axes.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        let (a, b) = (&self.shape, &other.shape);
        let fits = a.len() >= 2 && a.len() == b.len() && a[a.len() - 1] == b[b.len() - 2];
        if !fits || a[..a.len() - 2] != b[..b.len() - 2] {
            return Err(mismatch(format!("{self:?} and {other:?} have no matrix product")));
        }
        Ok(Tensor::float(B::float_matmul(self.as_float()?, other.as_float()?), &self.device))
    }

    /// Softmax over the last axis.
    pub fn softmax(&self) -> Result<Tensor> {
        let Some(last) = self.shape.len().checked_sub(1) else {
            return Err(mismatch(format!("{self:?} has no axis to take the softmax of")));
        };
        self.map_float(|t| B::softmax(t, last))
    }

    /// Index of the largest element of each row along the last axis, the first of equal ones.
    pub fn argmax(&self) -> Result<Vec<usize>> {
        let Some(&n) = self.shape.last().filter(|n| **n > 0) else {
            return Err(mismatch(format!("{self:?} has no largest element")));
        };
        let best = |row: &[f32]| {
            let start = (0, f32::NEG_INFINITY);
            row.iter().enumerate().fold(start, |a, (i, v)| if *v > a.1 { (i, *v) } else { a }).0
        };
        self.with_f32(|v| v.chunks_exact(n).map(best).collect())
    }

    /// Floats on a tape, as a leaf whose gradient can be asked for.
    pub(crate) fn leaf(&self) -> Result<Tensor> {
        Ok(Tensor::float(B::float_set_require_grad(B::from_inner(self.as_float()?), true), &self.device))
    }

    /// Whether operations on this tensor are recorded.
    pub(crate) fn is_taped(&self) -> bool {
        match &self.data {
            Data::Float(d) => d.autodiff != Default::default(),
            _ => false,
        }
    }

    /// The same elements without a tape.
    pub(crate) fn off_tape(&self) -> Result<Tensor> {
        match &self.data {
            Data::Float(d) if self.is_taped() => Ok(Tensor::float(B::inner(d.clone()), &self.device)),
            _ => Ok(self.clone()),
        }
    }
}

fn check_count(count: usize, shape: &[usize]) -> Result<()> {
    if shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)) == Some(count) {
        Ok(())
    } else {
        Err(mismatch(format!("{count} values do not fill shape {shape:?}")))
    }
}

fn slice_rows<T: Copy>(v: &[T], shape: &[usize], axis: usize, range: Range<usize>) -> Vec<T> {
    let inner: usize = shape[axis + 1..].iter().product();
    let stride = shape[axis] * inner;
    if stride == 0 {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(v.len() / stride * range.len() * inner);
    v.chunks_exact(stride).for_each(|c| out.extend_from_slice(&c[range.start * inner..range.end * inner]));
    out
}

fn join_rows<T: Copy>(parts: &[(&[T], usize)], shape: &[usize], axis: usize) -> Vec<T> {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let mut out = Vec::with_capacity(parts.iter().map(|(v, _)| v.len()).sum());
    for o in 0..outer {
        for (v, n) in parts {
            out.extend_from_slice(&v[o * n * inner..(o + 1) * n * inner]);
        }
    }
    out
}

fn permute<T: Copy>(v: &[T], shape: &[usize], axes: &[usize]) -> Vec<T> {
    let mut strides = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * shape[i + 1];
    }
    let sizes: Vec<usize> = axes.iter().map(|a| shape[*a]).collect();
    let mut index = vec![0; sizes.len()];
    let mut out = Vec::with_capacity(v.len());
    for _ in 0..v.len() {
        out.push(v[index.iter().zip(axes).map(|(i, a)| i * strides[*a]).sum::<usize>()]);
        for k in (0..index.len()).rev() {
            index[k] += 1;
            if index[k] < sizes[k] {
                break;
            }
            index[k] = 0;
        }
    }
    out
}

/// Waits for a read-back. CPU reads are ready at once; GPU reads wake this thread.
fn futures_block<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}
