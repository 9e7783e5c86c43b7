//! What is computed again draws the same random numbers. Alone in its program, whose tests would share the generator.

use std::cell::Cell;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};
use torch_ext::{Autocast, checkpoint};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Two layers with dropout between them; the gradients of x and of both weights, and the loss.
fn gradients(again: bool, calls: &Rc<Cell<u32>>) -> Vec<Tensor> {
    tch::manual_seed(7);
    let weights = [6, 5].map(|n| (Tensor::randn([n, n + 1], F32)).set_requires_grad(true));
    let x = Tensor::randn([4, 7], F32).set_requires_grad(true);
    let [one, two] = [weights[0].shallow_clone(), weights[1].shallow_clone()];
    let calls = Rc::clone(calls);
    let part = move |x: &Tensor| {
        calls.set(calls.get() + 1);
        x.matmul(&one.tr()).gelu("none").dropout(0.5, true).matmul(&two.tr())
    };
    let y = if again { checkpoint(&x, part).unwrap() } else { part(&x) };
    let after = Tensor::rand([4], F32);
    let loss = (y.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float) * &after).square().sum(Kind::Float);
    loss.backward();
    // Random numbers behind the part, and after the gradient, are those that they would be.
    let drawn = Tensor::rand([3], F32);
    vec![x.grad(), weights[0].grad(), weights[1].grad(), loss.detach(), after, drawn]
}

#[test]
fn gradients_and_random_numbers_stay() {
    for bf16 in [false, true] {
        let run = |again| {
            let calls = Rc::new(Cell::new(0));
            let guard = bf16.then(|| Autocast::new(Device::Cpu, Kind::BFloat16).unwrap());
            let found = gradients(again, &calls);
            drop(guard);
            (found, calls.get())
        };
        let ((plain, once), (again, twice)) = (run(false), run(true));
        assert_eq!((once, twice), (1, 2));
        for (a, b) in plain.iter().zip(&again) {
            assert!(a.equal(b), "{a:?} and {b:?}");
        }
    }
}
