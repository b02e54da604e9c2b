#include "runtime/kv_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/random.h"

namespace tandem {
namespace {

TEST(KvPages, TakesAllOrNothing) {
  KvPages pages(5);
  std::vector<int32_t> a, b;
  EXPECT_TRUE(pages.take(3, a));
  EXPECT_FALSE(pages.take(3, b));
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(pages.num_free(), 2);
  EXPECT_TRUE(pages.take(2, b));
  EXPECT_TRUE(pages.take(0, b));
  EXPECT_FALSE(pages.take(1, b));
  EXPECT_EQ(pages.num_free(), 0);
}

TEST(KvPages, HandsOutTouchedPagesFirst) {
  KvPages pages(100);
  std::vector<int32_t> first, again;
  ASSERT_TRUE(pages.take(4, first));
  EXPECT_EQ(first, (std::vector<int32_t>{0, 1, 2, 3}));
  pages.give_back(first);
  ASSERT_TRUE(pages.take(4, again));
  EXPECT_EQ(again, first);
}

TEST(KvPagesDeathTest, RefusesAPageThatIsNotTaken) {
  KvPages pages(4);
  std::vector<int32_t> taken;
  ASSERT_TRUE(pages.take(2, taken));
  const std::vector<int32_t> foreign{3}, outside{4}, twice{taken[0], taken[0]};
  EXPECT_DEATH(pages.give_back(foreign), "not taken");
  EXPECT_DEATH(pages.give_back(outside), "not taken");
  EXPECT_DEATH(pages.give_back(twice), "not taken");
}

TEST(KvPages, RandomOwnersNeverShareAndNeverLeak) {
  constexpr int64_t kNumPages = 61;
  KvPages pages(kNumPages);
  Random random(1);
  std::vector<std::vector<int32_t>> owners;
  for (int round = 0; round < 20000; ++round) {
    if (random.below(2) == 0 || owners.empty()) {
      std::vector<int32_t> taken;
      const int64_t count = static_cast<int64_t>(random.below(20));
      const bool fits = count <= pages.num_free();
      ASSERT_EQ(pages.take(count, taken), fits);
      if (fits) owners.push_back(taken);
    } else {
      const size_t leaving = random.below(owners.size());
      pages.give_back(owners[leaving]);
      owners.erase(owners.begin() + static_cast<std::ptrdiff_t>(leaving));
    }
    std::set<int32_t> owned;
    size_t num_owned = 0;
    for (const auto& owner : owners) {
      owned.insert(owner.begin(), owner.end());
      num_owned += owner.size();
    }
    ASSERT_EQ(owned.size(), num_owned) << "a page has two owners";
    ASSERT_EQ(pages.num_free(), kNumPages - static_cast<int64_t>(num_owned));
  }
  for (const auto& owner : owners) pages.give_back(owner);
  EXPECT_EQ(pages.num_free(), kNumPages);
}

}  // namespace
}  // namespace tandem
