"""Who calls, what they may do, and what they did.

    doors ──> Gate.enter       credentials -> Caller          credentials.py, passwords.py, throttle.py
          ──> Gate.run         rule of the method -> yes/no   rules.py, resources.py, roles.py
                               the call itself                store/visibility.py filters searches
                               audit entry                    store/audit.py

Without `auth` there is no Gate, and nothing here runs.
"""
