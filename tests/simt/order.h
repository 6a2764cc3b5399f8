// Whose turn it is: the order of the blocks of a grid, and of the threads of a block that can run.
//
// The order of threads is chosen by set_order:
//   0 each in turn, 1 the same backwards, 2 the lowest thread that can run (so that one warp gets
//   as far ahead as barriers let it), 3 the highest, from 4 on random, blocks too, by that seed.
#pragma once

#include <cstdint>

namespace simt {

void set_order(int order);

// A launch of `blocks` blocks of `threads` threads, none of which can run yet.
void begin_turns(uint64_t blocks, unsigned threads);

uint64_t block_in_turn(uint64_t i);  // the block that comes after i others

void set_ready(unsigned thread);
void set_waiting(unsigned thread);
unsigned turn_before_first();       // what next_turn is given for the first turn of a block
unsigned next_turn(unsigned last);  // the thread after `last`; the number of threads: none can run

}  // namespace simt
