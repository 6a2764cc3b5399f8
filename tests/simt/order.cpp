#include "order.h"

#include <utility>
#include <vector>

namespace simt {

namespace {

int order = 0;
uint64_t random_state = 1;
uint64_t blocks;
std::vector<uint32_t> shuffled;  // the blocks, where their order is random
unsigned count;                  // threads of a block
std::vector<uint64_t> ready;     // a bit each

uint64_t random_number() {  // xorshift64*
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545F4914F6CDD1Dull;
}

// The first ready thread from t on, going up or down and around; count where there is none.
unsigned next_ready(unsigned t, bool down) {
  const auto word = [](unsigned i, unsigned from, bool down) {
    const uint64_t all = ready[i];
    return down ? all & (~uint64_t(0) >> (63 - from)) : all & (~uint64_t(0) << from);
  };
  const unsigned words = static_cast<unsigned>(ready.size());
  unsigned from = t % 64;
  for (unsigned step = 0, i = t / 64; step <= words; ++step) {
    if (const uint64_t found = word(i, from, down))
      return 64 * i + (down ? 63 - __builtin_clzll(found) : __builtin_ctzll(found));
    i = down ? (i + words - 1) % words : (i + 1) % words;
    from = down ? 63 : 0;
  }
  return count;
}

}  // namespace

void set_order(int chosen) { order = chosen; }

void begin_turns(uint64_t number_of_blocks, unsigned threads) {
  blocks = number_of_blocks;
  count = threads;
  ready.assign((count + 63) / 64, 0);
  random_state = 0x9E3779B97F4A7C15ull + static_cast<uint64_t>(order);
  shuffled.clear();
  if (order > 3) {
    for (uint64_t i = 0; i < blocks; ++i) shuffled.push_back(static_cast<uint32_t>(i));
    for (uint64_t i = blocks; i > 1; --i) std::swap(shuffled[i - 1], shuffled[random_number() % i]);
  }
}

uint64_t block_in_turn(uint64_t i) {
  return order > 3 ? shuffled[i] : order % 2 ? blocks - 1 - i : i;
}

void set_ready(unsigned t) { ready[t / 64] |= uint64_t(1) << (t % 64); }

void set_waiting(unsigned t) { ready[t / 64] &= ~(uint64_t(1) << (t % 64)); }

unsigned turn_before_first() { return order == 1 ? 0 : count - 1; }

unsigned next_turn(unsigned last) {
  switch (order) {
    case 0:
      return next_ready((last + 1) % count, false);
    case 1:
      return next_ready((last + count - 1) % count, true);
    case 2:
      return next_ready(0, false);
    case 3:
      return next_ready(count - 1, true);
    default:
      return next_ready(static_cast<unsigned>(random_number() % count), false);
  }
}

}  // namespace simt
