// SPDX-License-Identifier: Apache-2.0
#include "engine/tenants.h"

#include <algorithm>
#include <numeric>

namespace thermocline {

namespace {

/// Levels are told in so many parts of a page for a weight of one.
constexpr unsigned kLevelShift = 16;
/// A tenant that is off by less than one in so many of the capacity is left alone: what is wanted
/// changes a little in every epoch.
constexpr std::uint64_t kSlack = 128;

/// A product of a page count and a number below 2^32, by `unit`; sizes of real machines don't
/// overflow.
std::uint64_t scaled(std::uint64_t value, std::uint64_t by, std::uint64_t unit) {
  return value / unit * by + value % unit * by / unit;
}

std::uint64_t given(const TenantNeed& tenant, std::uint64_t level) {
  const std::uint64_t most = std::min(tenant.ceiling, tenant.wanted).get();
  const std::uint64_t least = std::min(tenant.floor.get(), most);
  return std::clamp(scaled(level, tenant.weight, std::uint64_t{1} << kLevelShift), least, most);
}

std::uint64_t sum_given(std::span<const TenantNeed> tenants, std::uint64_t level) {
  return std::accumulate(
      tenants.begin(), tenants.end(), std::uint64_t{0},
      [level](std::uint64_t sum, const TenantNeed& t) { return sum + given(t, level); });
}

PageCount sum_of(const std::vector<Move>& moves, const std::set<Asid>& spaces, TierId tier,
                 TierId Move::*end) {
  PageCount sum;
  for (const Move& move : moves)
    if (move.*end == tier && spaces.contains(move.asid)) sum += move.order.pages();
  return sum;
}

/// Takes moves of some address spaces off the end of a list until they are `pages` fewer.
void drop_last(std::vector<Move>& moves, const std::set<Asid>& spaces, TierId tier,
               TierId Move::*end, PageCount pages) {
  for (auto move = moves.rbegin(); move != moves.rend() && pages > PageCount(0); ++move) {
    if ((*move).*end != tier || !spaces.contains(move->asid)) continue;
    pages = pages.minus_floor(move->order.pages());
    move->order = PageOrder(255);  // marked
  }
  std::erase_if(moves, [](const Move& move) { return move.order == PageOrder(255); });
}

/// A tenant with what its moves of the plan make of it.
struct Account {
  const Tenant* tenant;
  TenantStatus status;
  PageCount promoted, demoted;
  [[nodiscard]] PageCount after() const { return (status.fast + promoted).minus_floor(demoted); }
  [[nodiscard]] PageCount over() const { return after().minus_floor(status.entitled); }
  [[nodiscard]] PageCount under() const { return status.entitled.minus_floor(after()); }
};

class Enforcer {
 public:
  Enforcer(const View& view, std::span<const Tenant> tenants, Plan& plan)
      : view_(view), plan_(plan), fast_(view.tiers[0].id), slow_(view.tiers[1].id) {
    for (const Tenant& tenant : tenants) accounts_.push_back(open(tenant));
    std::vector<TenantNeed> needs;
    for (const Account& account : accounts_)
      needs.push_back({account.tenant->limits.weight, account.tenant->limits.floor,
                       account.tenant->limits.ceiling, account.status.wanted});
    const std::vector<PageCount> shares = entitlements(view.tiers[0].capacity, needs);
    for (std::size_t i = 0; i < shares.size(); ++i) accounts_[i].status.entitled = shares[i];
  }

  void run() {
    const PageCount slack(view_.tiers[0].capacity.get() / kSlack);
    const bool scarce = std::any_of(accounts_.begin(), accounts_.end(), [&](const Account& a) {
      return a.status.entitled + slack < std::min(a.status.wanted, a.tenant->limits.ceiling);
    });
    for (Account& account : accounts_) trim(account, scarce);
    // What those below their share still have to get, beside the room there is.
    PageCount claims;
    for (const Account& account : accounts_)
      if (account.under() > slack) claims += account.under();
    const PageCount needed = scarce ? claims.minus_floor(room()) : PageCount(0);
    PageCount freed;
    for (Account& account : accounts_) {
      const PageCount ceiling = account.tenant->limits.ceiling;
      PageCount give = account.after().minus_floor(ceiling);
      if (account.over() > slack)
        give = std::max(give, std::min(account.over(), needed.minus_floor(freed)));
      freed += demote(account, give);
    }
    for (Account& account : accounts_)
      if (account.under() > slack) promote(account, account.under());
  }

  [[nodiscard]] std::vector<TenantStatus> told() const {
    std::vector<TenantStatus> statuses;
    for (const Account& account : accounts_) statuses.push_back(account.status);
    return statuses;
  }

 private:
  Account open(const Tenant& tenant) const {
    Account account{&tenant, {}, {}, {}};
    account.status.limits = tenant.limits;
    account.status.processes = tenant.spaces.size();
    for (const Asid asid : tenant.spaces)
      account.status.fast += view_.heat.occupancy(asid).per_tier[fast_.get()];
    for (const TierView& tier : view_.tiers) {
      const auto pages = view_.heat.histogram(tier.id, false, 1, &tenant.spaces);
      for (std::size_t heat = 1; heat < pages.size(); ++heat) account.status.wanted += pages[heat];
    }
    account.promoted = sum_of(plan_.promotions, tenant.spaces, fast_, &Move::to);
    account.demoted = sum_of(plan_.demotions, tenant.spaces, fast_, &Move::from);
    return account;
  }

  /// Takes from the plan what would bring a tenant above its share or below.
  void trim(Account& account, bool scarce) {
    const std::set<Asid>& spaces = account.tenant->spaces;
    const PageCount most = scarce
                               ? std::min(account.status.entitled, account.tenant->limits.ceiling)
                               : account.tenant->limits.ceiling;
    if (const PageCount above = std::min(account.after().minus_floor(most), account.promoted);
        above > PageCount(0)) {
      drop_last(plan_.promotions, spaces, fast_, &Move::to, above);
      account.promoted = sum_of(plan_.promotions, spaces, fast_, &Move::to);
    }
    // Without room to spare a tier gives back what it must, whosever that is.
    if (!scarce || view_.tiers[0].used > view_.tiers[0].capacity) return;
    if (const PageCount below = std::min(account.under(), account.demoted); below > PageCount(0)) {
      drop_last(plan_.demotions, spaces, fast_, &Move::from, below);
      drop_last(plan_.spares, spaces, fast_, &Move::from, PageCount(~std::uint64_t{0}));
      account.demoted = sum_of(plan_.demotions, spaces, fast_, &Move::from);
    }
  }

  /// Free pages of the fast tier once the plan is carried out.
  [[nodiscard]] PageCount room() const {
    PageCount in, out = view_.tiers[0].free;
    for (const Move& move : plan_.promotions)
      if (move.to == fast_) in += move.order.pages();
    for (const Move& move : plan_.demotions)
      if (move.from == fast_) out += move.order.pages();
    return out.minus_floor(in);
  }
  [[nodiscard]] PageCount budget() const {
    PageCount planned;
    for (const auto* moves : {&plan_.demotions, &plan_.promotions})
      for (const Move& move : *moves) planned += move.order.pages();
    return view_.budget.moves.minus_floor(planned);
  }
  [[nodiscard]] std::set<std::pair<Asid, Vpn>> planned() const {
    std::set<std::pair<Asid, Vpn>> pages;
    for (const auto* moves : {&plan_.demotions, &plan_.promotions, &plan_.spares})
      for (const Move& move : *moves) pages.emplace(move.asid, move.vpn);
    return pages;
  }

  PageCount add(const Tenant& tenant, TierId from, TierId to, bool up, PageCount pages,
                std::vector<Move>& moves) {
    const auto known = planned();
    const PageCount limit(pages.get() + known.size());
    PageCount added;
    // Only what is touched at all is worth a promotion.
    for (const PageRef& page : view_.heat.candidates(from, Heat(up ? 1 : 0), Heat(255), up, limit,
                                                     {TouchSet(), &tenant.spaces})) {
      if (known.contains({page.asid, page.vpn})) continue;
      if (added + page.order.pages() > pages) break;
      moves.push_back({page.asid, page.vpn, page.order, from, to, page.heat, kEngineRule});
      added += page.order.pages();
    }
    return added;
  }

  PageCount demote(Account& account, PageCount pages) {
    // One half of the budget: the other is for what comes in exchange.
    pages =
        std::min({pages, PageCount(budget().get() / 2), view_.tiers[1].free + sum_promotions()});
    if (pages == PageCount(0)) return pages;
    const PageCount added = add(*account.tenant, fast_, slow_, false, pages, plan_.demotions);
    account.demoted += added;
    return added;
  }
  void promote(Account& account, PageCount pages) {
    pages = std::min({pages, budget(), room()});
    if (pages == PageCount(0)) return;
    account.promoted += add(*account.tenant, slow_, fast_, true, pages, plan_.promotions);
  }
  /// Pages that leave the second tier for the first.
  [[nodiscard]] PageCount sum_promotions() const {
    PageCount sum;
    for (const Move& move : plan_.promotions)
      if (move.from == slow_) sum += move.order.pages();
    return sum;
  }

  const View& view_;
  Plan& plan_;
  TierId fast_, slow_;
  std::vector<Account> accounts_;
};

}  // namespace

std::vector<PageCount> entitlements(PageCount capacity, std::span<const TenantNeed> tenants) {
  std::vector<TenantNeed> needs(tenants.begin(), tenants.end());
  if (const std::uint64_t floors = sum_given(needs, 0); floors > capacity.get())
    for (TenantNeed& need : needs)
      need.floor = PageCount(scaled(capacity.get(), given(need, 0), floors));
  // The highest level at which all that is given fits.
  std::uint64_t low = 0, high = ~std::uint64_t{0} >> 1;
  while (low < high) {
    const std::uint64_t middle = low + (high - low + 1) / 2;
    if (sum_given(needs, middle) <= capacity.get())
      low = middle;
    else
      high = middle - 1;
  }
  std::vector<PageCount> result;
  for (const TenantNeed& need : needs) result.emplace_back(given(need, low));
  return result;
}

std::vector<TenantStatus> enforce_shares(const View& view, std::span<const Tenant> tenants,
                                         Plan& plan) {
  if (view.tiers.size() < 2) return {};
  Enforcer enforcer(view, tenants, plan);
  const bool limited =
      tenants.size() > 1 || std::any_of(tenants.begin(), tenants.end(), [](const Tenant& tenant) {
        return tenant.limits.ceiling != TenantLimits{}.ceiling;
      });
  if (limited) enforcer.run();
  return enforcer.told();
}

void demote_coldest(const View& view, PageCount pages, Plan& plan) {
  if (view.tiers.size() < 2) return;
  const TierId fast = view.tiers[0].id, slow = view.tiers[1].id;
  std::set<std::pair<Asid, Vpn>> known;
  PageCount planned, to_slow;
  for (const auto* moves : {&plan.demotions, &plan.promotions, &plan.spares})
    for (const Move& move : *moves) known.emplace(move.asid, move.vpn);
  for (const auto* moves : {&plan.demotions, &plan.promotions})
    for (const Move& move : *moves) {
      planned += move.order.pages();
      if (move.to == slow) to_slow += move.order.pages();
    }
  pages = std::min(
      {pages, view.budget.moves.minus_floor(planned), view.tiers[1].free.minus_floor(to_slow)});
  for (const PageRef& page : view.heat.candidates(fast, Heat(0), Heat(255), false,
                                                  PageCount(pages.get() + known.size()))) {
    if (known.contains({page.asid, page.vpn})) continue;
    if (pages < page.order.pages()) break;
    plan.demotions.push_back({page.asid, page.vpn, page.order, fast, slow, page.heat, kEngineRule});
    pages -= page.order.pages();
  }
}

void make_headroom(const View& view, PageCount missing, Plan& plan) {
  const TierId fast = view.tiers[0].id;
  PageCount freed;
  for (const Move& move : plan.demotions)
    if (move.from == fast) freed += move.order.pages();
  if (missing <= freed) return;
  // What is missing is not for promotions.
  std::erase_if(plan.promotions, [&](const Move& move) { return move.to == fast; });
  demote_coldest(view, missing - freed, plan);
}

}  // namespace thermocline
