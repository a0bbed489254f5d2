"""Rules of the business inside decoding: pinned positions, and at most k of a group within w.

An order of precedence holds where rules cannot all hold: no item twice, then pins, then the limit.
A pin that names no free candidate, a position beyond the list, or an item that is pinned before is
dropped. The limit gives way position by position, to the candidates that exceed it least; it looks
ahead at pins, and at nothing else. What had to give is reported, never an error.

Written for TorchScript and for export. Axes: B batch, M candidates, N list positions (also the
first positions of the windows).
"""

# No lazy annotations here: TorchScript resolves the fields of Rules from what they hold.
from typing import NamedTuple

import torch
from torch import Tensor

from training.model.layers import block_where, is_free


class Rules(NamedTuple):
    """Rules of a batch, and what decoding has to remember of them.

    Attributes:
        pinned_BN: candidate at each position, -1 where none is pinned.
        reserved_BM: whether a candidate is pinned somewhere.
        group_BM: group of each candidate, -1 for none: such items are never too many.
        most_B1, window_B1: k and w; a window of 0 sets no limit.
        count_BNM: items of candidate j's group in the window that begins at each position, the
            pinned ones counted ahead.
    """

    pinned_BN: Tensor
    reserved_BM: Tensor
    group_BM: Tensor
    most_B1: Tensor
    window_B1: Tensor
    count_BNM: Tensor


def make_rules(prior_BM: Tensor, pinned_BN: Tensor, group_BM: Tensor, limit_B2: Tensor) -> Rules:
    """The rules of a batch of requests.

    Args:
        prior_BM: of the encoder; blocked at padded candidates.
        pinned_BN: int, a candidate for each position, -1 for none.
        group_BM: int, -1 for none.
        limit_B2: int, k and w: at most k items of a group among w neighbours; w = 0 for no limit.
    """
    n, m = pinned_BN.size(1), prior_BM.size(1)
    free_BM = is_free(prior_BM)
    position = torch.arange(n, device=prior_BM.device)
    pinned = pinned_BN.long()
    inside = (pinned >= 0) & (pinned < m)
    index = pinned.clamp(min=0, max=m - 1)
    wanted = inside & free_BM.gather(1, index)
    wanted = wanted & (position < free_BM.sum(1, keepdim=True))
    same = (index.unsqueeze(2) == index.unsqueeze(1)) & wanted.unsqueeze(1)
    earlier = position.unsqueeze(0) < position.unsqueeze(1)
    wanted = wanted & ~(same & earlier).any(2)
    pinned = torch.where(wanted, index, torch.full_like(index, -1))
    candidate = torch.arange(m, device=prior_BM.device)
    pinned_BNM = pinned.unsqueeze(2) == candidate
    group = group_BM.long()
    most_B1, window_B1 = limit_B2[:, :1].long(), limit_B2[:, 1:].long()
    group_BN = torch.where(wanted, group.gather(1, index), torch.full_like(index, -1))
    like_BNM = (group_BN.unsqueeze(2) == group.unsqueeze(1)) & (group_BN >= 0).unsqueeze(2)
    covers_BNN = _covers(position.unsqueeze(0), position, window_B1)
    count_BNM = covers_BNN.float().transpose(1, 2) @ like_BNM.float()
    return Rules(pinned, pinned_BNM.any(1), group, most_B1, window_B1, count_BNM)


def _covers(place_BT: Tensor, start_N: Tensor, window_B1: Tensor) -> Tensor:
    """Whether the window that begins at each of N positions covers a place [B, T, N]."""
    back = place_BT.unsqueeze(2) - start_N
    return (back >= 0) & (back < window_B1.unsqueeze(2))


def restrict(scores_BM: Tensor, place_B1: Tensor, rules: Rules) -> Tensor:
    """The scores for the position of each row [B, 1], BLOCKED where a rule forbids the item."""
    n = rules.pinned_BN.size(1)
    pin_B1 = rules.pinned_BN.gather(1, place_B1.clamp(max=n - 1))
    candidate = torch.arange(scores_BM.size(1), device=scores_BM.device)
    start = torch.arange(n, device=scores_BM.device)
    # A group's count in the fullest window that an item placed here would stand in.
    covers_BN1 = _covers(place_B1, start, rules.window_B1).transpose(1, 2)
    fullest_BM = (rules.count_BNM * covers_BN1.float()).amax(1)
    over_BM = (fullest_BM + 1 - rules.most_B1).clamp(min=0) * (rules.window_B1 > 0)
    over_BM = over_BM * (rules.group_BM >= 0)
    closed_BM = rules.reserved_BM | ~is_free(scores_BM)
    least_B1 = over_BM.masked_fill(closed_BM, 1e9).amin(1, keepdim=True)
    # Not torch.where on booleans, which ONNX Runtime does not have.
    wanted_B1 = pin_B1 >= 0
    forbidden_BM = (rules.reserved_BM | (over_BM > least_B1)) & ~wanted_B1
    return block_where(scores_BM, forbidden_BM | (wanted_B1 & (candidate != pin_B1)))


def placed(rules: Rules, place_B1: Tensor, item_B: Tensor) -> Rules:
    """The rules after an item was placed; pinned ones and -1 add nothing."""
    n = rules.pinned_BN.size(1)
    index_B1 = item_B.clamp(min=0).unsqueeze(1)
    group_B1 = rules.group_BM.gather(1, index_B1)
    new_B1 = (item_B.unsqueeze(1) >= 0) & (group_B1 >= 0)
    new_B1 = new_B1 & ~rules.reserved_BM.gather(1, index_B1)
    start = torch.arange(n, device=item_B.device)
    covers_BN1 = _covers(place_B1, start, rules.window_B1).transpose(1, 2)
    like_BM = (rules.group_BM == group_B1) & new_B1
    count_BNM = rules.count_BNM + covers_BN1.float() * like_BM.unsqueeze(1).float()
    return Rules(
        rules.pinned_BN,
        rules.reserved_BM,
        rules.group_BM,
        rules.most_B1,
        rules.window_B1,
        count_BNM,
    )


def relaxed(order_BN: Tensor, asked_BN: Tensor, rules: Rules) -> Tensor:
    """What had to give, int32 [B, 2]: pins that do not stand, and positions over the limit.

    A position is over the limit where its item and those up to w - 1 before it hold more than k
    of its group. ``asked_BN`` are the pins as they were asked for.
    """
    order = order_BN.long()
    dropped_B = ((asked_BN >= 0) & (asked_BN.long() != order)).sum(1)
    group = rules.group_BM.gather(1, order.clamp(min=0))
    group = torch.where(order >= 0, group, torch.full_like(group, -1))
    position = torch.arange(order.size(1), device=order.device)
    back_NN = position.unsqueeze(1) - position.unsqueeze(0)
    near_BNN = (back_NN >= 0) & (back_NN < rules.window_B1.unsqueeze(2))
    alike_BNN = (group.unsqueeze(2) == group.unsqueeze(1)) & (group >= 0).unsqueeze(2)
    over_BN = ((alike_BNN & near_BNN).sum(2) > rules.most_B1) & (rules.window_B1 > 0)
    over_BN = over_BN & (group >= 0)
    return torch.stack([dropped_B, over_BN.sum(1)], dim=1).int()
