// Writes module.pt: a module as libtorch itself saves it, for the tests to load.
//
//     TORCH=$(python -c "import torch; print(torch.__path__[0])")
//     g++ -std=c++20 -I$TORCH/include -I$TORCH/include/torch/csrc/api/include make_module.cpp
//         -L$TORCH/lib -Wl,-rpath,$TORCH/lib -ltorch -ltorch_cpu -lc10 -o make_module && ./make_module module.pt
//
// The weights count up in eighths, in the order of the names: norm.weight begins with 0, head.weight with 1.5.

#include <torch/torch.h>

struct Network : torch::nn::Module {
  Network() {
    norm = register_module("norm", torch::nn::BatchNorm1d(3));
    head = register_module("head", torch::nn::Linear(3, 2));
    torch::NoGradGuard no_gradients;
    float next = 0;
    for (torch::Tensor tensor : {norm->weight, norm->bias, norm->running_mean, norm->running_var, head->weight, head->bias}) {
      tensor.copy_((torch::arange(tensor.numel()) + next).div(8).view_as(tensor));
      next += tensor.numel();
    }
  }
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Linear head{nullptr};
};

int main(int, char** arguments) {
  torch::save(std::make_shared<Network>(), arguments[1]);
}
