"""The loop that most people write in PyTorch: eager, default formats, Adam, a DataLoader with workers."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from contestants.case import LEARNING_RATE, Case, read_case, time_epochs, time_steps
from contestants.torch_case import Images, Logits, dice, torch_batch, wait_for


class Loop:
    """Network, loss and optimizer."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.network = Logits(case).to(case.device)
        self.loss = nn.BCEWithLogitsLoss()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)

    def compute(self, images: Tensor) -> Tensor:
        with torch.autocast(self.case.device, torch.bfloat16, enabled=self.case.precision == "bf16"):
            return self.network(images).float()

    def step(self, images: Tensor, masks: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = self.loss(self.compute(images), masks)
        loss.backward()
        self.optimizer.step()
        return float(loss)

    def train(self, folder: Path) -> None:
        workers = len(os.sched_getaffinity(0))
        loaders = {
            split: DataLoader(Images(self.case, split), self.case.batch, shuffle=split == "train", num_workers=workers)
            for split in ("train", "test")
        }
        for epoch in range(1, self.case.epochs + 1):
            self.network.train()
            for images, masks in loaders["train"]:
                loss = self.step(images.to(self.case.device), masks.to(self.case.device))
            self.network.eval()
            overlap, total = torch.zeros((), device=self.case.device), torch.zeros((), device=self.case.device)
            with torch.no_grad():
                for images, masks in loaders["test"]:
                    predicted = (self.compute(images.to(self.case.device)) > 0).float()
                    truth = masks.to(self.case.device)
                    overlap += (predicted * truth).sum()
                    total += (predicted + truth).sum()
            print(f"epoch {epoch}: loss {loss:.4f}, dice {dice(overlap, total):.4f}")
            torch.save(self.network.state_dict(), folder / f"{epoch}.pt")


def main() -> None:
    case = read_case()
    loop = Loop(case)
    if case.steps:
        images, masks = torch_batch(case)
        loop.network.train()
        time_steps(case, lambda: loop.step(images, masks), lambda: wait_for(case))
    time_epochs(case, loop.train)


if __name__ == "__main__":
    main()
